package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	"dray/find"
	"dray/find/seek"
	"dray/transport"
)

var cmdFind = &cobra.Command{
	Use:   "find CID|TICKET",
	Short: "say who holds a CID, and whether they can be reached",
	Long: `Find asks everybody who may know who holds a root: what was learnt before, the peers that are connected and whom these are
connected to, named peers, the local network, and the routers of the settings. Each provider is printed as soon as it was
found, dialled, and asked whether it holds the root; those that are no Drays are only dialled. docs/finding.md says where
is looked, and in which order.

It ends when nobody has more to say, or after --timeout. It exits with 0 when somebody can be reached who may have it, 5 when
nobody who was found can be reached, and 3 when nobody was found, or nobody has it.

With --json each is {"peer":…,"addrs":[…],"source":…,"by":…,"found_seconds":…,"reachable":…,"holds":…,"probe_seconds":…,"error":…};
holds is left out when nobody knows, and the peer "here" is this home.`,
	Example: `  dray find bafybei…
  dray find bafybei… --timeout 10s --json
  dray find bafybei… --from /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…`,
	Args: arguments(1, 1, "a CID or TICKET"),
}

func newFind(e *env) *cobra.Command {
	var o sourceOptions
	c := bind(e, cmdFind, func(ctx context.Context, e *env, args []string) error { return runFind(ctx, e, o, args) })
	o.flags(c)
	return c
}

// findRequest asks who holds a root.
type findRequest struct {
	targetRequest
	Timeout time.Duration `json:"timeout,omitempty"`
}

// provider is one who holds a root, or is said to.
type provider struct {
	// Peer is the peer's id, or "here".
	Peer   string   `json:"peer"`
	Addrs  []string `json:"addrs,omitempty"`
	Source string   `json:"source"`
	// By names the finder, see finders.go.
	By           string  `json:"by"`
	FoundSeconds float64 `json:"found_seconds"`
	Reachable    bool    `json:"reachable"`
	// Holds is what it says itself, or nil.
	Holds        *bool   `json:"holds,omitempty"`
	ProbeSeconds float64 `json:"probe_seconds"`
	Error        string  `json:"error,omitempty"`
}

const (
	here        = "here"
	probeWithin = 10 * time.Second
	probesMost  = 8 // at a time
	addrsShown  = 3 // of a provider, to people
)

// findResult is what came of it.
type findResult struct {
	Seconds float64 `json:"seconds"`
}

var taskFind = task[findRequest, provider, findResult]{name: "find", network: true, run: findProviders}

func runFind(ctx context.Context, e *env, o sourceOptions, args []string) error {
	t, err := o.target(args[0])
	if err != nil {
		return err
	}
	if len(t.names) > 0 {
		return usagef("%s has a path; right is a CID or a TICKET alone, because roots are what is announced", clip(args[0]))
	}
	var list []provider
	show := func(p provider) {
		list = append(list, p)
		if e.json {
			_ = e.emit(p) // the next line says it, if nobody reads any more
		} else {
			p.print(e)
		}
	}
	r, err := taskFind.with(ctx, e, findRequest{t.request(), o.timeout}, pipes[provider]{note: show})
	if err != nil {
		return err
	}
	return verdictOf(t.root, list, r)
}

// print writes a provider for people.
func (p *provider) print(e *env) {
	word := "reachable, may have it"
	switch {
	case p.Holds != nil && *p.Holds:
		word = "has it"
	case p.Error != "":
		word = "not reachable: " + p.Error
	case p.Holds != nil:
		word = "does not have it"
	}
	where := strings.Join(p.Addrs[:min(len(p.Addrs), addrsShown)], " ")
	if more := len(p.Addrs) - addrsShown; more > 0 {
		where += fmt.Sprintf(" and %d more", more)
	}
	e.printf("%s  %s  by %s after %s  %s", p.Peer, word, p.By, seconds(time.Duration(p.FoundSeconds*float64(time.Second))), where)
}

// verdictOf is the error of a search that found nobody who could deliver.
func verdictOf(root cid.Cid, list []provider, r findResult) error {
	lost := 0
	for _, p := range list {
		switch {
		case !p.Reachable:
			lost++
		case p.Holds == nil || *p.Holds:
			return nil
		}
	}
	fail := func(why error, what string) error {
		return &dray.Error{Op: "find", CID: root, Err: fmt.Errorf("%w: %s", why, what)}
	}
	switch {
	case lost > 0:
		return fail(dray.ErrUnreachable, "nobody who was found can be reached")
	case len(list) > 0:
		return fail(dray.ErrNotFound, "nobody who was found has it")
	}
	return fail(dray.ErrNotFound, "nobody was found in "+seconds(time.Duration(r.Seconds*float64(time.Second))))
}

// findProviders is the task: find, and look whether they are there.
func findProviders(ctx context.Context, h *house, q findRequest, p pipes[provider]) (r findResult, err error) {
	began := time.Now()
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return r, err
	}
	if _, err := h.store.Stat(ctx, t.root); err == nil {
		yes := true
		p.note(provider{Peer: here, Source: find.Exchange.String(), By: "store", Reachable: true, Holds: &yes})
	}
	for _, x := range t.peers {
		h.finders.seek.Learn(t.root, find.Provider{ID: x.ID, Addrs: x.Addrs, Source: find.Static}, time.Hour)
	}
	var (
		wg    sync.WaitGroup
		room  = make(chan struct{}, probesMost)
		found = make(chan provider)
		ended = make(chan error, 1)
	)
	wg.Go(func() {
		ended <- h.finders.seek.Search(ctx, t.root, func(s seek.Sighting) {
			wg.Go(func() {
				select {
				case room <- struct{}{}:
					defer func() { <-room }()
				case <-ctx.Done():
				}
				found <- h.probe(ctx, t.root, s)
			})
		})
	})
	done := make(chan struct{})
	var last sync.WaitGroup
	last.Go(func() { wg.Wait(); close(done) })
	defer last.Wait()
	for going := true; going; {
		select {
		case x := <-found:
			p.note(x)
		case <-done:
			going = false
		}
	}
	r.Seconds = time.Since(began).Seconds()
	if err = <-ended; errors.Is(err, context.DeadlineExceeded) {
		err = nil // the user's timeout: what was found until then counts
	}
	return r, err
}

// probe looks whether a provider is there and holds a root.
func (h *house) probe(ctx context.Context, root cid.Cid, s seek.Sighting) provider {
	x := provider{
		Peer: s.ID.String(), Addrs: s.Addrs, Source: s.Source.String(), By: s.By, FoundSeconds: s.After.Seconds(),
	}
	began := time.Now()
	within, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	holds, err := h.finders.peers.Asks(within, transport.Peer{ID: s.ID, Addrs: s.Addrs}, root)
	x.ProbeSeconds = time.Since(began).Seconds()
	switch {
	case err == nil:
		x.Reachable, x.Holds = true, &holds
		h.finders.Held(root, s.ID, holds)
	case errors.Is(err, transport.ErrRefused), errors.Is(err, transport.ErrBusy):
		x.Reachable, err = true, nil // it speaks something else, or does not want to answer now
	default:
		x.Error = oneLine(err)
	}
	if ctx.Err() == nil { // else it may have had too little time
		h.finders.Reached(s.ID, err)
	}
	return x
}
