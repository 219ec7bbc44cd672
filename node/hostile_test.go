package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/store"
	"dray/transport"
	"dray/wire"
)

// evil is a peer made of nothing but a transport: it reads what it is sent and does with it what a test says.
type evil struct {
	t    *testing.T
	net  transport.Network
	wg   sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc
	// on is called with every message and a stream to answer on.
	on func(conn transport.Conn, m *wire.Message)
}

func newEvil(t *testing.T, mem *transport.Memory) *evil {
	e := &evil{t: t, net: mem.NewHost()}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.net.Handle(protocols()[1:], func(c transport.Conn, s transport.Stream) {
		frames := wire.FrameReader{R: s}
		for {
			buf, err := frames.Next(func(n int) []byte { return make([]byte, n) })
			if err != nil {
				s.Reset()
				return
			}
			var m wire.Message
			if err := wire.Decode(wire.V120, buf, &m); err == nil && e.on != nil {
				e.on(c, m.Clone())
			}
		}
	})
	e.net.Notify(func(transport.Conn) {}, func(dray.PeerID) {})
	return e
}

// send writes raw bytes on a fresh stream.
func (e *evil) send(c transport.Conn, raw []byte) {
	e.wg.Go(func() {
		s, err := c.Open(e.ctx, transport.Protocol(wire.ProtocolV120))
		if err != nil {
			return
		}
		s.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := s.Write(raw); err != nil {
			s.Reset()
			return
		}
		s.CloseWrite()
		io.Copy(io.Discard, s)
		s.Reset()
	})
}

func (e *evil) sendMessage(c transport.Conn, m *wire.Message) {
	raw, err := wire.AppendMessage(nil, wire.V120, m)
	if err != nil {
		e.t.Error(err)
		return
	}
	e.send(c, raw)
}

func (e *evil) close() {
	e.stop()
	e.net.Close()
	e.wg.Wait()
}

// rawPrefix is the CID prefix of the blocks that these tests exchange.
var rawPrefix = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}

// TestHostilePeers fetches from an honest peer while another misbehaves in one way: the transfer completes with the right
// bytes, and offenders are dropped.
func TestHostilePeers(t *testing.T) {
	for _, c := range []struct {
		name   string
		banned bool
		on     func(e *evil, conn transport.Conn, m *wire.Message)
	}{
		{"says nothing", false, func(*evil, transport.Conn, *wire.Message) {}},
		{"claims everything and sends nothing", false, func(e *evil, conn transport.Conn, m *wire.Message) {
			var out wire.Message
			for _, w := range m.Wants {
				if !w.Cancel {
					out.Presences = append(out.Presences, wire.Presence{CID: w.CID, Have: true})
				}
			}
			e.sendMessage(conn, &out)
		}},
		{"sends wrong bytes", true, func(e *evil, conn transport.Conn, m *wire.Message) {
			var out wire.Message
			for i, w := range m.Wants {
				if !w.Cancel {
					out.Blocks = append(out.Blocks, wire.Block{Prefix: w.CID.Prefix(), Data: []byte(fmt.Sprint("wrong", i, w.CID))})
				}
			}
			e.sendMessage(conn, &out)
		}},
		{"sends unasked blocks", true, func(e *evil, conn transport.Conn, _ *wire.Message) {
			var out wire.Message
			for i := range 100 {
				out.Blocks = append(out.Blocks, wire.Block{Prefix: rawPrefix, Data: fmt.Appendf(nil, "unasked %d", i)})
			}
			e.sendMessage(conn, &out)
		}},
		{"sends an oversized frame", true, func(e *evil, conn transport.Conn, _ *wire.Message) {
			e.send(conn, binary.AppendUvarint(nil, wire.MaxMessageSize+1))
		}},
		{"sends garbage", true, func(e *evil, conn transport.Conn, _ *wire.Message) {
			e.send(conn, append([]byte{16}, "this is no proto"...))
		}},
		{"announces a frame and stops", false, func(e *evil, conn transport.Conn, _ *wire.Message) {
			e.send(conn, append(binary.AppendUvarint(nil, wire.MaxMessageSize), 1, 2, 3))
		}},
		{"wants a million things", false, func(e *evil, conn transport.Conn, _ *wire.Message) {
			for k := range 20 {
				var out wire.Message
				for i := range 50_000 {
					b, _ := dray.Hashed(rawPrefix, binary.BigEndian.AppendUint64(nil, uint64(k*50_000+i)))
					out.Wants = append(out.Wants, wire.Entry{CID: b.CID(), SendDontHave: true})
				}
				for part := range out.Split(wire.V120, wire.MaxWantlistSize) {
					e.sendMessage(conn, part)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { hostile(t, c.banned, c.on) })
	}
}

func hostile(t *testing.T, banned bool, on func(*evil, transport.Conn, *wire.Message)) {
	synctest.Test(t, func(t *testing.T) {
		mem := transport.NewMemory(transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: gigabit})
		bad := newEvil(t, mem)
		var mu sync.Mutex
		acts := 0
		bad.on = func(conn transport.Conn, m *wire.Message) {
			mu.Lock()
			acts++
			first := acts <= 4
			mu.Unlock()
			if first {
				on(bad, conn, m)
			}
		}
		var nodes []*Node
		var nets []transport.Network
		for range 2 {
			net := mem.NewHost()
			n, err := New(Config{Store: store.NewMem(0), Network: net})
			if err != nil {
				t.Fatal(err)
			}
			nodes, nets = append(nodes, n), append(nets, net)
		}
		seed, getter := nodes[0], nodes[1]
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		root := tinyTree(t, ctx, seed, 3000)
		peers := []transport.Peer{peerOf(seed), {ID: bad.net.Self(), Addrs: bad.net.Addrs()}}
		for _, p := range peers {
			if err := getter.Connect(ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		p, err := getter.Fetch(ctx, FetchConfig{Root: root, Peers: peers})
		if err != nil {
			t.Fatalf("%v %+v", err, p)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("took %v", took)
		}
		if p.Leaves != 3000 {
			t.Errorf("%d leaves", p.Leaves)
		}
		for _, s := range p.Sources {
			if s.Peer != seed.Self() {
				t.Errorf("%d bytes came from the peer that has none", s.Bytes)
			}
		}
		if got := getter.Totals().Banned; (got > 0) != banned {
			t.Errorf("banned %d peers, want a ban: %v", got, banned)
		}
		bad.close()
		for i, n := range nodes {
			n.Close()
			nets[i].Close()
		}
	})
}

// TestNotFound asks somebody who does not have it: the answer is prompt and says who was asked.
func TestNotFound(t *testing.T) {
	bubble(t, transport.MemoryConfig{Latency: oneWay}, 2, func(ctx context.Context, n []*Node) {
		b, err := dray.Hashed(rawPrefix, []byte("nobody has this"))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = n[1].Fetch(ctx, FetchConfig{Root: b.CID(), Peers: []transport.Peer{peerOf(n[0])}})
		if !errors.Is(err, dray.ErrNotFound) || time.Since(start) > 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestUnreachable names a peer that is not there.
func TestUnreachable(t *testing.T) {
	bubble(t, transport.MemoryConfig{Latency: oneWay}, 2, func(ctx context.Context, n []*Node) {
		b, err := dray.Hashed(rawPrefix, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = n[1].Fetch(ctx, FetchConfig{Root: b.CID(), Peers: []transport.Peer{{ID: "gone", Addrs: []string{"/memory/99"}}}})
		if !errors.Is(err, dray.ErrUnreachable) {
			t.Error(err)
		}
	})
}

// TestLateBlock waits for a block that is put while somebody waits for it, here and at a peer.
func TestLateBlock(t *testing.T) {
	bubble(t, transport.MemoryConfig{Latency: oneWay}, 2, func(ctx context.Context, n []*Node) {
		if err := n[1].Connect(ctx, peerOf(n[0])); err != nil {
			t.Fatal(err)
		}
		b, err := dray.Hashed(rawPrefix, []byte("late"))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, node := range n {
			s := node.NewSession(SessionConfig{})
			wg.Go(func() {
				got, err := s.Get(ctx, b.CID())
				if err != nil || string(got.Data()) != "late" {
					t.Errorf("%v %v", got, err)
				}
				s.Close()
			})
		}
		synctest.Wait()
		if err := n[0].Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		wg.Wait()
		if d := time.Since(start); d > time.Second {
			t.Errorf("heard of the block after %v", d)
		}
	})
}

// TestGetsShare has a thousand callers want one block: it crosses the network once.
func TestGetsShare(t *testing.T) {
	bubble(t, transport.MemoryConfig{Latency: oneWay}, 2, func(ctx context.Context, n []*Node) {
		b, err := dray.Hashed(rawPrefix, make([]byte, 100<<10))
		if err != nil {
			t.Fatal(err)
		}
		if err := n[0].Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := n[1].Connect(ctx, peerOf(n[0])); err != nil {
			t.Fatal(err)
		}
		s := n[1].NewSession(SessionConfig{Peers: []dray.PeerID{n[0].Self()}})
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				ctx := ctx
				if i%10 == 0 { // some leave early
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, oneWay)
					defer cancel()
				}
				if _, err := s.Get(ctx, b.CID()); err != nil && !(i%10 == 0 && errors.Is(err, dray.ErrTimeout)) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if st := n[0].Totals(); st.Served != 1 {
			t.Errorf("served %d times", st.Served)
		}
		s.Close()
	})
}
