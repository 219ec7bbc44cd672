package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray/exchange"
	"dray/node"
)

var cmdPeers = &cobra.Command{
	Use:   "peers",
	Short: "list the peers that the daemon is connected to",
	Long: `Peers lists who is connected to the daemon on this home, over what, how many bytes of blocks passed each way, and what the
daemon thinks of each: connected (nothing delivered yet), healthy, slow, backed off (asked for nothing for a while) or probing
(asked for a little, to see). Then come those who are not connected: being dialled, backed off and until when, or banned and
why. Without a daemon there are none.

With --json each line is {"peer":…,"addr":…,"transport":…,"security":…,"relayed":…,"inbound":…,"protocol":…,"data_plane":…,
"sent":…,"received":…,"connected":…,"state":…,"for_seconds":…,"reason":…,"detail":…,"rate":…,"rtt_ms":…,"failures":…,"path":…}, without
what there is not, and with "via", the relay, if there is one. The path says it in words: direct over tcp. The data plane is "libp2p streams", "tls xN" or "clear xN", with N connections; the rate is in bytes a second.`,
	Example: "  dray peers",
	Args:    arguments(0, 0, ""),
}

func newPeers(e *env) *cobra.Command { return bind(e, cmdPeers, runPeers) }

// connected is one peer that the daemon is connected to, or stays away from.
type connected struct {
	Peer      string `json:"peer"`
	Addr      string `json:"addr"`
	Transport string `json:"transport"`
	Security  string `json:"security"`
	Relayed   bool   `json:"relayed"`
	// Via is the relay. Path is all this in words, such as "direct over tcp", or "relayed over quic-v1 via 12D3KooW…".
	Via       string `json:"via,omitempty"`
	Inbound   bool   `json:"inbound"`
	Protocol  string `json:"protocol"`
	DataPlane string `json:"data_plane"`
	Sent      int64  `json:"sent"`
	Received  int64  `json:"received"`

	Connected  bool    `json:"connected"`
	State      string  `json:"state"`
	ForSeconds float64 `json:"for_seconds,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	Detail     string  `json:"detail,omitempty"`
	Rate       float64 `json:"rate,omitempty"`
	RTTMillis  float64 `json:"rtt_ms,omitempty"`
	Failures   int     `json:"failures,omitempty"`
	Path       string  `json:"path,omitempty"`
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
		if !p.Connected {
			e.printf("%s  not connected  %s", p.Peer, p.condition())
			continue
		}
		e.printf("%s  %s  data over %s  sent %s  received %s  %s  %s",
			p.Peer, p.Path, p.DataPlane, size(p.Sent), size(p.Received), p.condition(), p.Addr)
	}
	return nil
}

// condition says the state of a peer, until when it lasts and why.
func (c connected) condition() string {
	text := c.State
	if c.ForSeconds > 0 {
		text += " for " + seconds(time.Duration(c.ForSeconds*float64(time.Second)))
	}
	if c.Detail != "" {
		text += fmt.Sprintf(" (%s: %s)", c.Reason, oneLine(errors.New(c.Detail)))
	}
	return text
}

func listPeers(_ context.Context, h *house, _ nothing, _ pipes[nothing]) ([]connected, error) {
	list := []connected{}
	for _, p := range h.node.Peers() {
		list = append(list, describePeer(p))
	}
	slices.SortFunc(list, func(a, b connected) int { return strings.Compare(a.Peer, b.Peer) })
	for _, p := range h.node.Absent() {
		list = append(list, describePeer(p))
	}
	return list, nil
}

func describePeer(p node.PeerStatus) connected {
	h := p.Health
	return connected{
		Peer: p.ID.String(), Addr: p.Info.Remote, Transport: p.Info.Transport, Security: p.Info.Security,
		Relayed: p.Info.Relayed, Via: p.Info.Via.String(), Path: p.Info.String(), Inbound: p.Info.Inbound, Protocol: p.Protocol, DataPlane: p.Info.DataPlane,
		Sent: p.Account.Sent, Received: p.Account.Received,
		Connected: h.Connected, State: stateWords(h.State), ForSeconds: p.Left.Seconds(), Reason: h.Reason.String(),
		Detail: h.Detail, Rate: h.Rate, RTTMillis: float64(h.RTT) / float64(time.Millisecond), Failures: h.Failures,
	}
}

// stateWords writes a peer's state for people.
func stateWords(s exchange.Health) string {
	if s == exchange.HealthBackedOff {
		return "backed off"
	}
	return strings.ToLower(s.String())
}
