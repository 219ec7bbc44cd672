package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"dray/exchange"
)

var cmdCat = &cobra.Command{
	Use:   "cat " + targetHelp,
	Short: "write a file to standard output, in order, while it arrives",
	Long: `Cat writes the content of a file to standard output. What is not in the home is fetched in order, a little ahead of what
was written, and verified before it is written. Fetched blocks stay in the home; ` + "`dray rm CID`" + ` removes them.`,
	Example: `  dray cat bafybei…/README.md
  dray cat TICKET | tar x`,
	Args: arguments(1, 1, targetHelp),
}

func newCat(e *env) *cobra.Command {
	var o sourceOptions
	c := bind(e, cmdCat, func(ctx context.Context, e *env, args []string) error { return runCat(ctx, e, o, args) })
	o.flags(c)
	planeFlag(e, c)
	return c
}

// sourceOptions are the flags of every command that may ask peers.
type sourceOptions struct {
	from    []string
	timeout time.Duration
}

func (o *sourceOptions) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&o.from, "from", nil,
		"multiaddr of a peer to ask, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… (repeatable)")
	c.Flags().DurationVar(&o.timeout, "timeout", 0, "give up after this long, such as 30s or 5m (0: never)")
}

// target reads what the user wants and from whom.
func (o *sourceOptions) target(arg string) (target, error) {
	if o.timeout < 0 {
		return target{}, usagef("--timeout %v is negative; right is a duration such as 30s", o.timeout)
	}
	return parseTarget(arg, o.from)
}

type catRequest struct {
	targetRequest
	Timeout time.Duration `json:"timeout,omitempty"`
}

type catResult struct {
	Bytes int64 `json:"bytes"`
}

var taskCat = task[catRequest, nothing, catResult]{name: "cat", network: true, run: catFile}

func runCat(ctx context.Context, e *env, o sourceOptions, args []string) error {
	t, err := o.target(args[0])
	if err != nil {
		return err
	}
	_, err = taskCat.with(ctx, e, catRequest{t.request(), o.timeout}, pipes[nothing]{out: e.stdout})
	return err
}

func catFile(ctx context.Context, h *house, q catRequest, p pipes[nothing]) (result catResult, err error) {
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return result, err
	}
	ctx, a, err := h.ask(ctx, t, exchange.InOrder)
	if err != nil {
		return result, err
	}
	defer a.close()
	defer func() { err = a.explain(ctx, err) }()
	c, err := a.resolve(ctx, t.names)
	if err != nil {
		return result, err
	}
	f, err := a.session.Open(ctx, c)
	if err != nil {
		return result, err
	}
	result.Bytes, err = io.Copy(p.out, f)
	return result, errors.Join(err, f.Close())
}
