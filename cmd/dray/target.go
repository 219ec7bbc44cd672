package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	rules "dray/access"
	"dray/transport"
	"dray/transport/p2p"
	"dray/unixfs"
)

// target is what a user wants: a root, what lies at a path below it, and where it may be got.
type target struct {
	root  cid.Cid
	names []string
	peers []transport.Peer
	// name is what it is called, or "".
	name string
	// secret is what a private ticket lets its holder in with.
	secret rules.Secret
}

const targetHelp = "CID|TICKET[/path/inside]"

// parseTarget reads CID, CID/path, /ipfs/CID/path, TICKET or TICKET/path, and the peers named beside it.
func parseTarget(s string, from []string) (target, error) {
	t, err := parseRoot(s)
	if err != nil {
		return target{}, err
	}
	peers, err := parsePeers(from)
	if err != nil {
		return target{}, err
	}
	t.peers = mergePeers(append(peers, t.peers...))
	if len(t.names) > 0 {
		t.name = t.names[len(t.names)-1]
	}
	return t, nil
}

func parseRoot(s string) (target, error) {
	if strings.TrimSpace(s) == "" {
		return target{}, usagef("the CID is empty; right is " + targetHelp)
	}
	if looksLikeTicket(s) {
		text, path, _ := strings.Cut(s, "/")
		k, err := parseTicket(text)
		if err != nil {
			return target{}, usagef("bad ticket: %w", err)
		}
		_, names, err := unixfs.SplitPath(k.root.String() + "/" + path)
		if err != nil {
			return target{}, usagef("bad path %q: %w; right is %s", clip(path), cause(err), targetHelp)
		}
		return target{root: k.root, names: names, peers: k.peers, name: k.name, secret: k.secret}, nil
	}
	root, names, err := unixfs.SplitPath(s)
	switch {
	case errors.Is(err, dray.ErrBadCID):
		return target{}, usagef("%q is no CID and no ticket (%w); right is a CID like bafybei… or Qm…, or a ticket like dray1…",
			clip(s), cause(err))
	case err != nil:
		return target{}, usagef("bad path %q: %w; right is %s", clip(s), cause(err), targetHelp)
	}
	return target{root: root, names: names}, nil
}

// request returns the target in the form in which it travels to the daemon.
func (t *target) request() targetRequest {
	q := targetRequest{Root: t.root.String(), Names: t.names, Capability: encodeSecret(t.secret)}
	for _, p := range t.peers {
		for _, a := range p.Addrs {
			q.Peers = append(q.Peers, withPeer(a, p.ID))
		}
	}
	return q
}

// targetRequest is a target on its way to the daemon.
type targetRequest struct {
	Root  string   `json:"root"`
	Names []string `json:"names,omitempty"`
	Peers []string `json:"peers,omitempty"`
	// Capability is the secret of a private root.
	Capability string `json:"capability,omitempty"`
}

func (q *targetRequest) target() (target, error) {
	root, err := parseCID(q.Root)
	if err != nil {
		return target{}, err
	}
	t := target{root: root, names: q.Names, peers: q.peers()}
	t.secret, err = decodeSecret(q.Capability)
	return t, err
}

// peers reads the addresses.
func (q *targetRequest) peers() []transport.Peer {
	var peers []transport.Peer
	for _, a := range q.Peers {
		p, err := p2p.ParseAddr(a)
		if err != nil {
			continue // a ticket may name addresses of a kind that this version cannot dial
		}
		peers = append(peers, p)
	}
	return mergePeers(peers)
}

// begin reads the target and bounds the time, where the task runs, so that whoever runs it can say what it waited for. A private
// target is private there from then on.
func (q *targetRequest) begin(ctx context.Context, h *house, timeout time.Duration) (
	context.Context, context.CancelFunc, target, error,
) {
	t, err := q.target()
	if err == nil {
		err = h.keep(ctx, t)
	}
	if err != nil || timeout <= 0 {
		return ctx, func() {}, t, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	return ctx, cancel, t, nil
}
