package main

import (
	"context"

	"github.com/spf13/cobra"

	"dray/transport/p2p"
)

var cmdID = &cobra.Command{
	Use:   "id",
	Short: "print this host's peer id and addresses",
	Long: `Id prints the peer id that belongs to the home's key, which is made on first use, and the addresses at which a running
daemon can be reached.

With --json it prints {"peer":…,"addrs":[…]}.`,
	Example: "  dray id",
	Args:    arguments(0, 0, ""),
}

func newID(e *env) *cobra.Command { return bind(e, cmdID, runID) }

// identity is who a host is and where.
type identity struct {
	Peer  string   `json:"peer"`
	Addrs []string `json:"addrs"`
}

var taskID = task[nothing, nothing, identity]{name: "id", run: tellIdentity}

func tellIdentity(_ context.Context, h *house, _ nothing, _ pipes[nothing]) (identity, error) {
	return h.identity(), nil
}

// identity of a house that is connected to a network.
func (h *house) identity() identity {
	id := identity{Peer: h.node.Self().String(), Addrs: h.node.Addrs()}
	if id.Addrs == nil {
		id.Addrs = []string{}
	}
	return id
}

func runID(ctx context.Context, e *env, _ []string) error {
	id, err := findIdentity(ctx, e)
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(id)
	}
	e.printf("%s", id.Peer)
	for _, a := range id.Addrs {
		e.printf("%s", a)
	}
	return nil
}

// findIdentity asks the daemon, else the key; the store need not be opened for that.
func findIdentity(ctx context.Context, e *env) (identity, error) {
	home, err := e.home()
	if err != nil {
		return identity{}, err
	}
	r, err := dialRemote(ctx, home)
	if err != nil {
		return identity{}, err
	}
	if r != nil {
		defer r.Close()
		return taskID.do(ctx, r, nothing{}, pipes[nothing]{})
	}
	if err := makeHome(home); err != nil {
		return identity{}, err
	}
	key, err := p2p.LoadKey(keyPath(home))
	if err != nil {
		return identity{}, err
	}
	peer, err := key.ID()
	return identity{Peer: peer.String(), Addrs: []string{}}, err
}
