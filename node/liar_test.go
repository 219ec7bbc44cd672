package node

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/transport"
	"dray/wire"
)

// liar is a peer that speaks TensorSwap, and says what a test wants. It is made of nothing but a transport.
type liar struct {
	t    *testing.T
	net  transport.Network
	wg   sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc
	// hears is called with every message that comes, on a goroutine of its stream; says once for each connection.
	hears func(k *talk, m *wire.Message)
	says  func(k *talk)
	deaf  bool // it reads nothing

	mu    sync.Mutex
	talks map[dray.PeerID]*talk
}

// talk is what a liar and one peer say to each other.
type talk struct {
	l    *liar
	conn transport.Conn
	out  chan []byte // to the control stream, in order

	mu  sync.Mutex
	seq uint64
}

func newLiar(t *testing.T, mem *transport.Memory) *liar {
	l := &liar{t: t, net: mem.NewHost(), talks: make(map[dray.PeerID]*talk)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.net.Handle([]transport.Protocol{wire.ProtocolSwap1}, func(c transport.Conn, s transport.Stream) {
		k := l.talk(c)
		if l.deaf {
			<-l.ctx.Done()
			s.Reset()
			return
		}
		frames := wire.FrameReader{R: s, Version: wire.Swap1}
		for {
			buf, err := frames.Next(func(n int) []byte { return make([]byte, n) })
			if err != nil {
				s.Reset()
				return
			}
			var m wire.Message
			if err := wire.Decode(wire.Swap1, buf, &m); err != nil {
				t.Errorf("the node sent what no Dray may send: %v", err)
			}
			if l.hears != nil {
				l.hears(k, m.Clone())
			}
		}
	})
	l.net.Notify(func(c transport.Conn) { l.talk(c) }, func(id dray.PeerID) {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.talks, id)
	})
	return l
}

func (l *liar) talk(c transport.Conn) *talk {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.talks[c.Peer()]
	if k == nil {
		k = &talk{l: l, conn: c, out: make(chan []byte, 1<<16)}
		l.talks[c.Peer()] = k
		l.wg.Go(k.write)
		if l.says != nil {
			l.wg.Go(func() { l.says(k) })
		}
	}
	return k
}

func (l *liar) close() {
	l.stop()
	l.net.Close()
	l.wg.Wait()
}

// write writes the control stream.
func (k *talk) write() {
	s, err := k.conn.Open(k.l.ctx, wire.ProtocolSwap1)
	if err != nil {
		return
	}
	defer s.Reset()
	for {
		select {
		case <-k.l.ctx.Done():
			return
		case b := <-k.out:
			s.SetWriteDeadline(time.Now().Add(time.Minute))
			if _, err := s.Write(b); err != nil {
				return
			}
		}
	}
}

// say sends a message on the control stream, with the next number.
func (k *talk) say(m wire.Message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seq++
	m.Seq, m.Full = k.seq, k.seq == 1
	k.put(&m)
}

// begin says anew: message 1, in mid-connection.
func (k *talk) begin(m wire.Message) {
	k.mu.Lock()
	k.seq = 0
	k.mu.Unlock()
	k.say(m)
}

func (k *talk) put(m *wire.Message) {
	raw, err := wire.AppendMessage(nil, wire.Swap1, m)
	if err != nil {
		k.l.t.Error(err)
		return
	}
	k.raw(raw)
}

func (k *talk) raw(b []byte) {
	select {
	case k.out <- b:
	case <-k.l.ctx.Done():
	}
}

// beside writes bytes on a stream of their own, and holds it open.
func (k *talk) beside(raw []byte) {
	l := k.l
	l.wg.Go(func() {
		s, err := k.conn.Open(l.ctx, wire.ProtocolSwap1)
		if err != nil {
			return
		}
		s.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := s.Write(raw); err == nil {
			io.Copy(io.Discard, s)
		}
		s.Reset()
	})
}

// blocks sends each block in a data frame on a stream of its own.
func (k *talk) blocks(all ...dray.Block) {
	var raw []byte
	for _, b := range all {
		var err error
		m := wire.Message{Blocks: []wire.Block{{Prefix: b.CID().Prefix(), Data: b.Data()}}}
		if raw, err = wire.AppendMessage(raw, wire.Swap1, &m); err != nil {
			k.l.t.Error(err)
		}
	}
	k.beside(raw)
}
