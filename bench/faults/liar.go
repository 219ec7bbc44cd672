package faults

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/transport"
	"dray/transport/p2p"
	"dray/wire"
)

// A liar is a process that speaks TensorSwap and has nothing. It says that it has every leaf of every root that somebody
// follows, and differs in what it does when it is asked for one.
const (
	liarWrong = "wrong" // sends other bytes, framed as they should be
	liarLacks = "lacks" // says no, and then again that it has the leaf
	liarDrops = "drops" // never answers
)

// wrongBytes is how large the blocks are that a liar sends.
const wrongBytes = 1 << 20

// plenty is more credit than anybody uses.
const plenty = 1 << 40

// runLiar is a liar until ctx ends.
func runLiar(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("liar", flag.ContinueOnError)
	kind := fs.String("kind", liarWrong, "what it does when it is asked: wrong, lacks or drops")
	leaves := fs.Uint("leaves", 0, "how many leaves a root has")
	if err := fs.Parse(args); err != nil {
		return err
	}
	host, err := p2p.New(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		return err
	}
	l := &liar{ctx: ctx, kind: *kind, leaves: uint32(*leaves), talks: make(map[dray.PeerID]*talk)}
	host.Handle([]transport.Protocol{wire.ProtocolSwap1}, l.accept)
	host.Notify(func(c transport.Conn) { l.talk(c) }, l.gone)
	id, err := peerText(host.Addrs())
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(announcement{Peer: id, Addrs: host.Addrs()})
	}
	if err == nil {
		<-ctx.Done()
	}
	err = errors.Join(err, host.Close())
	l.wg.Wait()
	return err
}

// peerText returns the peer id that addresses end in.
func peerText(addrs []string) (string, error) {
	for _, a := range addrs {
		if _, id, ok := strings.Cut(a, "/p2p/"); ok {
			return id, nil
		}
	}
	return "", fmt.Errorf("no peer id in %q", addrs)
}

// liar is the process. Its talks are by peer.
type liar struct {
	ctx    context.Context
	kind   string
	leaves uint32
	wg     sync.WaitGroup

	mu    sync.Mutex
	talks map[dray.PeerID]*talk
}

// liarQueue bounds how many messages wait to be written to one peer; more are forgotten.
const liarQueue = 4096

// talk is what is said to one peer, on a stream for words and one for blocks.
type talk struct {
	conn          transport.Conn
	words, blocks chan wire.Message
	over          context.Context
	end           context.CancelFunc
	feeds         []uint32
}

func (l *liar) talk(c transport.Conn) *talk {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.talks[c.Peer()]
	if k == nil {
		k = &talk{conn: c, words: make(chan wire.Message, liarQueue), blocks: make(chan wire.Message, liarQueue)}
		k.over, k.end = context.WithCancel(l.ctx)
		l.talks[c.Peer()] = k
		k.words <- wire.Message{Credit: plenty}
		l.wg.Go(func() { k.write(k.words, true) })
		l.wg.Go(func() { k.write(k.blocks, false) })
	}
	return k
}

func (l *liar) gone(id dray.PeerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.talks[id]; k != nil {
		k.end()
		delete(l.talks, id)
	}
}

// accept reads what a peer says, and answers.
func (l *liar) accept(c transport.Conn, s transport.Stream) {
	k := l.talk(c)
	frames := wire.FrameReader{R: s, Version: wire.Swap1}
	for {
		buf, err := frames.Next(func(n int) []byte { return make([]byte, n) })
		if err != nil {
			_ = s.Reset()
			return
		}
		var m wire.Message
		if wire.Decode(wire.Swap1, buf, &m) == nil {
			l.answer(k, &m)
		}
	}
}

// answer says of every root that all of it is here, and treats wants as this liar does.
func (l *liar) answer(k *talk, m *wire.Message) {
	var out wire.Message
	for _, w := range m.Walks {
		if !w.Stop {
			out.Walked = append(out.Walked, wire.Walked{ID: w.ID, Status: wire.WalkAbsent})
		}
	}
	for _, f := range m.Follows {
		if !f.Stop {
			k.feeds = append(k.feeds, f.Feed)
			out.Haves = append(out.Haves, l.claim(f.Feed, false))
		}
	}
	for _, w := range m.Wants {
		if w.Cancel {
			continue
		}
		switch l.kind {
		case liarWrong:
			for range w.Leaves.N() {
				data := make([]byte, wrongBytes)
				data[0], data[1], data[2] = byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())
				prefix := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}
				say(k.blocks, wire.Message{Blocks: []wire.Block{{Prefix: prefix, Data: data}}})
			}
		case liarLacks:
			out.Presences = append(out.Presences, wire.Presence{CID: w.CID, Leaves: w.Leaves})
		}
	}
	if len(out.Presences) > 0 {
		say(k.words, out)
		out = wire.Message{}
		for _, f := range k.feeds {
			out.Haves = append(out.Haves, l.claim(f, true), l.claim(f, false))
		}
	}
	if !out.Empty() {
		say(k.words, out)
	}
}

// claim says that all leaves of a root are here, or lost.
func (l *liar) claim(feed uint32, lost bool) wire.Have {
	var w wire.BitsWriter
	w.Add(0, l.leaves)
	return wire.Have{Feed: feed, Leaves: l.leaves, Lost: lost, Bits: w.Bits()}
}

func say(to chan wire.Message, m wire.Message) {
	select {
	case to <- m:
	default: // the peer takes less than it asks for
	}
}

// write writes what is to be said on a stream of its own.
func (k *talk) write(what <-chan wire.Message, counted bool) {
	s, err := k.conn.Open(k.over, wire.ProtocolSwap1)
	if err != nil {
		return
	}
	stop := context.AfterFunc(k.over, func() { _ = s.Reset() })
	defer stop()
	defer func() { _ = s.Reset() }()
	var seq uint64
	for {
		select {
		case <-k.over.Done():
			return
		case m := <-what:
			if counted {
				seq++
				m.Seq, m.Full = seq, seq == 1
			}
			raw, err := wire.AppendMessage(nil, wire.Swap1, &m)
			if err != nil {
				fmt.Fprintln(os.Stderr, "liar:", err)
				return
			}
			_ = s.SetWriteDeadline(time.Now().Add(time.Minute))
			if _, err := s.Write(raw); err != nil {
				return
			}
		}
	}
}
