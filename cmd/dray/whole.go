package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/node"
	"dray/store/disk"
	"dray/unixfs"
)

const (
	partSuffix = ".dray-part"
	carSuffix  = ".car"
)

// whole gets everything under a root that is neither file nor directory, and writes it as a CAR.
func (g *getting) whole(ctx context.Context, n *node.Node) (getOutcome, error) {
	if g.q.AutoName && !g.q.InStore {
		g.q.Output += carSuffix
	}
	before := received(n)
	var blocks, bytes int64
	shown := time.Now()
	note := func() {
		g.note(getNote{
			Event: "progress", CID: g.t.root.String(), Done: bytes, Total: bytes, Seconds: time.Since(g.start).Seconds(),
			Rate: float64(bytes) / time.Since(g.start).Seconds(), Sources: receivedSince(n, before),
		})
	}
	err := n.FetchDAG(ctx, node.DAGConfig{Root: g.t.root, Peers: g.t.peers, Origin: g.q.onBehalf(), Each: func(b dray.Block) error {
		blocks, bytes = blocks+1, bytes+int64(b.Size())
		if now := time.Now(); now.Sub(shown) >= lookEvery {
			shown = now
			note()
		}
		return nil
	}})
	if err != nil {
		return getOutcome{}, g.h.explainDAG(g.t, err)
	}
	note()
	if !g.q.InStore {
		if err := g.writeCAR(ctx); err != nil {
			return getOutcome{}, err
		}
	}
	r := getOutcome{Path: g.q.Output}
	r.CID, r.Bytes, r.Seconds = g.t.root.String(), bytes, time.Since(g.start).Seconds()
	r.Sources = g.trace(g.h.planes(receivedSince(n, before)))
	return r, g.h.remember(ctx, disk.Root{
		CID: g.t.root, Path: g.q.Output, Size: bytes, Leaves: blocks, Mode: g.q.Mode, Sources: g.q.Peers,
	})
}

// explainDAG adds to the end of a get what could have been done.
func (h *house) explainDAG(t target, err error) error {
	if errors.Is(err, dray.ErrNotFound) {
		return nobody(t.root, t.peers, err)
	}
	return err
}

// received is what each connected peer has given so far.
func received(n *node.Node) map[dray.PeerID]exchange.Account {
	m := make(map[dray.PeerID]exchange.Account)
	for _, p := range n.Peers() {
		m[p.ID] = p.Account
	}
	return m
}

func receivedSince(n *node.Node, before map[dray.PeerID]exchange.Account) []source {
	list := []source{}
	for _, p := range n.Peers() {
		if got := p.Account.Received - before[p.ID].Received; got > 0 {
			list = append(list, source{Peer: p.ID.String(), Protocol: p.Protocol, Bytes: got})
		}
	}
	return list
}

// writeCAR writes the archive beside its place and moves it there when it is complete.
func (g *getting) writeCAR(ctx context.Context) error {
	part := g.q.Output + partSuffix
	file, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	defer os.Remove(part) // does nothing once it has moved
	w := bufio.NewWriterSize(file, 1<<20)
	err = unixfs.WriteCAR(ctx, w, []cid.Cid{g.t.root}, g.h.store)
	err = errors.Join(err, w.Flush(), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if !g.q.Force {
		same, err := sameBytes(g.q.Output, part)
		if err != nil {
			return err
		}
		if !same {
			return occupied(g.q.Output)
		}
	}
	return os.Rename(part, g.q.Output)
}

// sameBytes reports whether old is not there or has the bytes of made.
func sameBytes(old, made string) (bool, error) {
	a, err := os.Open(old)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := os.Open(made)
	if err != nil {
		return false, err
	}
	defer b.Close()
	x, y := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		switch {
		case isEnd(errA) && isEnd(errB):
			return true, nil
		case errA != nil && !isEnd(errA):
			return false, errA
		case errB != nil && !isEnd(errB):
			return false, errB
		}
	}
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
