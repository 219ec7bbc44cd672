package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

var cmdPeers = &cobra.Command{
	Use:   "peers",
	Short: "list the peers that the daemon is connected to",
	Long: `Peers lists who is connected to the daemon on this home, over what, and how many bytes of blocks passed each way. Without
a daemon there are none.

With --json each line is {"peer":…,"addr":…,"transport":…,"security":…,"relayed":…,"inbound":…,"protocol":…,"data_plane":…,"sent":…,"received":…}. The data plane is "libp2p streams", "tls xN" or "clear xN", with N connections.`,
	Example: "  dray peers",
	Args:    arguments(0, 0, ""),
}

func newPeers(e *env) *cobra.Command { return bind(e, cmdPeers, runPeers) }

// connected is one peer that the daemon is connected to.
type connected struct {
	Peer      string `json:"peer"`
	Addr      string `json:"addr"`
	Transport string `json:"transport"`
	Security  string `json:"security"`
	Relayed   bool   `json:"relayed"`
	Inbound   bool   `json:"inbound"`
	Protocol  string `json:"protocol"`
	DataPlane string `json:"data_plane"`
	Sent      int64  `json:"sent"`
	Received  int64  `json:"received"`
}

var taskPeers = task[nothing, nothing, []connected]{name: "peers", run: listPeers}

func runPeers(ctx context.Context, e *env, _ []string) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	r, err := dialRemote(ctx, home)
	if err != nil {
		return err
	}
	if r == nil {
		e.tell("no daemon runs on %s, so there are no peers; `dray serve` starts one", home)
		return nil
	}
	defer r.Close()
	list, err := taskPeers.do(ctx, r, nothing{}, pipes[nothing]{})
	if err != nil {
		return err
	}
	for _, p := range list {
		if e.json {
			if err := e.emit(p); err != nil {
				return err
			}
			continue
		}
		way := "direct"
		if p.Relayed {
			way = "relayed"
		}
		e.printf("%s  %s over %s  data over %s  sent %s  received %s  %s",
			p.Peer, way, p.Transport, p.DataPlane, size(p.Sent), size(p.Received), p.Addr)
	}
	return nil
}

func listPeers(_ context.Context, h *house, _ nothing, _ pipes[nothing]) ([]connected, error) {
	list := []connected{}
	for _, p := range h.node.Peers() {
		list = append(list, connected{
			Peer: p.ID.String(), Addr: p.Info.Remote, Transport: p.Info.Transport, Security: p.Info.Security,
			Relayed: p.Info.Relayed, Inbound: p.Info.Inbound, Protocol: p.Protocol, DataPlane: p.Info.DataPlane,
			Sent: p.Account.Sent, Received: p.Account.Received,
		})
	}
	slices.SortFunc(list, func(a, b connected) int { return strings.Compare(a.Peer, b.Peer) })
	return list, nil
}
