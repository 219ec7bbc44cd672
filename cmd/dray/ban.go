package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"dray"
)

var cmdBan = &cobra.Command{
	Use:   "ban [PEER]",
	Short: "refuse a peer, or list who is refused",
	Long: `Ban refuses a peer: it is disconnected at once, gets nothing from this home, is asked for nothing and is not dialled, until
the ban is over or ` + "`dray unban`" + ` ends it. Bans are kept in the home and hold across restarts, with and without a daemon.

Without a PEER it lists the bans that were made this way. Peers that break the protocol are refused for an hour by themselves;
` + "`dray peers`" + ` shows those too.

With --json it prints {"peer":…,"until":…,"reason":…} for each ban, without "until" when it has no end.`,
	Example: `  dray ban 12D3KooW… --for 1h --reason 'takes our whole uplink'
  dray ban`,
	Args: arguments(0, 1, "a PEER"),
}

var cmdUnban = &cobra.Command{
	Use:   "unban PEER",
	Short: "refuse a peer no longer",
	Long: `Unban ends a ban that ` + "`dray ban`" + ` made, or that the daemon on this home holds against a peer that broke the protocol. It
exits with 3 when there is none. With --json it prints {"peer":…}.`,
	Example: "  dray unban 12D3KooW…",
	Args:    arguments(1, 1, "a PEER"),
}

// banRequest asks for a ban, or for the list if Peer is empty.
type banRequest struct {
	Peer   string        `json:"peer,omitempty"`
	For    time.Duration `json:"for,omitempty"`
	Reason string        `json:"reason,omitempty"`
}

var (
	taskBan   = task[banRequest, nothing, []ban]{name: "ban", run: banPeer}
	taskUnban = task[banRequest, nothing, nothing]{name: "unban", run: unbanPeer}
)

func newBan(e *env) *cobra.Command {
	var q banRequest
	c := bind(e, cmdBan, func(ctx context.Context, e *env, args []string) error {
		if len(args) == 0 && (q.For != 0 || q.Reason != "") {
			return usagef("--for and --reason need a PEER; `dray ban` alone lists the bans")
		}
		if q.For < 0 {
			return usagef("bad --for: %v is not a time from now; right is one like 1h30m", q.For)
		}
		if len(args) == 1 {
			q.Peer = args[0]
		}
		return runBan(ctx, e, q)
	})
	c.Flags().DurationVar(&q.For, "for", 0, "how long, such as 1h30m (default until `dray unban`)")
	c.Flags().StringVar(&q.Reason, "reason", "", "what to tell whoever asks why")
	return c
}

func newUnban(e *env) *cobra.Command {
	return bind(e, cmdUnban, func(ctx context.Context, e *env, args []string) error {
		if _, err := parsePeerArg(args[0]); err != nil {
			return err
		}
		if _, err := taskUnban.with(ctx, e, banRequest{Peer: args[0]}, pipes[nothing]{}); err != nil {
			return err
		}
		if e.json {
			return e.emit(map[string]string{"peer": args[0]})
		}
		e.tell("%s is refused no longer", args[0])
		return nil
	})
}

func runBan(ctx context.Context, e *env, q banRequest) error {
	if q.Peer != "" {
		if _, err := parsePeerArg(q.Peer); err != nil {
			return err
		}
	}
	list, err := taskBan.with(ctx, e, q, pipes[nothing]{})
	if err != nil {
		return err
	}
	for _, b := range list {
		switch {
		case e.json:
			if err := e.emit(b); err != nil {
				return err
			}
		default:
			e.printf("%s  %s", b.Peer, b.words())
		}
	}
	if len(list) == 0 {
		e.tell("nobody is banned")
	}
	return nil
}

func parsePeerArg(text string) (dray.PeerID, error) {
	id, err := dray.ParsePeerID(text)
	if err != nil {
		return "", usagef("%q is no peer id (%s); `dray peers` lists those of the daemon's peers", clip(text), oneLine(err))
	}
	return id, nil
}

// banPeer refuses a peer and returns the ban, or returns all bans.
func banPeer(_ context.Context, h *house, q banRequest, _ pipes[nothing]) ([]ban, error) {
	if q.Peer == "" {
		return h.bans.list(time.Now())
	}
	id, err := parsePeerArg(q.Peer)
	if err != nil {
		return nil, err
	}
	if h.net != nil && id == h.net.Self() {
		return nil, usagef("%s is this home itself", q.Peer)
	}
	b := ban{Peer: id.String(), Reason: q.Reason}
	if b.Reason == "" {
		b.Reason = "the operator said so"
	}
	if q.For > 0 {
		until := time.Now().Add(q.For).UTC().Round(time.Second)
		b.Until = &until
	}
	if err := h.bans.add(b, time.Now()); err != nil {
		return nil, err
	}
	h.node.Ban(id, b.left(time.Now()), b.Reason)
	return []ban{b}, nil
}

func unbanPeer(_ context.Context, h *house, q banRequest, _ pipes[nothing]) (nothing, error) {
	id, err := parsePeerArg(q.Peer)
	if err != nil {
		return nothing{}, err
	}
	kept, err := h.bans.remove(id, time.Now())
	if err != nil {
		return nothing{}, err
	}
	if !h.node.Unban(id) && !kept {
		return nothing{}, &dray.Error{Op: "unban", Peer: id, Err: dray.ErrNotFound}
	}
	return nothing{}, nil
}
