package node

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/digest"
	"dray/exchange"
	"dray/transport"
	"dray/wire"
)

// accept reads the messages of one incoming stream until it ends. It runs on a goroutine of the network's.
func (n *Node) accept(conn transport.Conn, s transport.Stream) {
	if x, ok := n.services.by[s.Protocol()]; ok {
		n.serveStream(conn, s, x)
		return
	}
	version, ok := wire.ParseVersion(string(s.Protocol()))
	if !ok {
		s.Reset()
		return
	}
	r := &reader{n: n, peer: conn.Peer(), s: s, version: version}
	_, r.exposed = s.(transport.Exposed)
	if !n.ask(func() { n.streamOpened(r) }) || r.arriving == nil && r.guest == nil {
		s.Reset()
		return
	}
	r.frames = wire.FrameReader{R: r, Version: version}
	var err error
	if r.guest != nil {
		err = r.linger()
	}
	if err == nil {
		err = r.run()
	}
	if errors.Is(err, io.EOF) {
		s.Close()
	} else {
		r.blame(err)
		s.Reset()
	}
	n.do(func() { n.streamClosed(r) })
}

// reader turns one stream's bytes into inputs for the loop. It belongs to the stream's goroutine.
type reader struct {
	n       *Node
	peer    dray.PeerID
	s       transport.Stream
	version wire.Version
	frames  wire.FrameReader
	guest   *guest // as which the peer came, or nil
	// arriving bounds the frames of the peer's that have begun and not ended: it could hold all memory with frames that never
	// end.
	arriving *budget
	exposed  bool      // anybody on the way may have written what comes: blocks prove themselves, the rest is left out
	beat     time.Time // when the loop last heard that bytes arrive
	unheard  int64     // bytes since then
}

const (
	// heardEvery is how often the loop is told that a large message is still arriving.
	heardEvery = 250 * time.Millisecond

	// A frame that has begun takes memory until it ends, so it must arrive at no less than frameRate bytes a second.
	frameGrace = 20 * time.Second
	frameRate  = 32 << 10
)

// Read counts as a sign of life of the peer, so that a large block on a slow path does not look like silence.
func (r *reader) Read(p []byte) (int, error) {
	k, err := r.s.Read(p)
	if k > 0 {
		r.n.loads.received.Add(int64(k))
		r.unheard += int64(k)
		if now := time.Now(); now.Sub(r.beat) > heardEvery {
			bytes := r.unheard
			r.beat, r.unheard = now, 0
			r.n.do(func() { r.n.engine.Heard(r.n.now(), r.peer, bytes) })
		}
	}
	return k, err
}

func (r *reader) run() error {
	var arriving, taken int64
	alloc := func(size int) []byte {
		if !r.arriving.take(int64(size)) {
			return nil
		}
		arriving = int64(size)
		began := time.Now()
		if !r.n.budget.take(arriving) {
			return nil
		}
		r.n.loads.behind.Add(int64(time.Since(began)))
		taken = arriving
		r.s.SetReadDeadline(time.Now().Add(frameGrace + time.Duration(size)*time.Second/frameRate))
		return r.n.buffers.get(size)
	}
	for {
		arriving, taken = 0, 0
		buf, err := r.frames.Next(alloc)
		r.arriving.give(arriving)
		if err != nil {
			if taken > 0 {
				r.n.budget.give(taken)
				r.n.buffers.put(buf)
			}
			return err
		}
		r.s.SetReadDeadline(time.Time{})
		if err := r.message(buf, taken); err != nil {
			return err
		}
	}
}

// message decodes one frame, has its blocks hashed and hands everything to the loop.
func (r *reader) message(buf []byte, size int64) error {
	n := r.n
	f := &frame{buf: buf, size: size}
	m := new(wire.Message)
	if err := wire.Decode(r.version, buf, m); err != nil {
		n.budget.give(size)
		return err
	}
	if err := r.notes(buf); err != nil {
		n.budget.give(size)
		return err
	}
	if r.exposed {
		*m = wire.Message{Blocks: m.Blocks}
	}
	f.left = len(m.Blocks) + 1 // one for the message itself
	if m.Seq != 0 {
		return r.answer(m, f)
	}
	jobs := make([]digest.Job, len(m.Blocks))
	for i := range m.Blocks {
		j := &jobs[i]
		j.Prefix, j.Data = m.Blocks[i].Prefix, m.Blocks[i].Data
		j.Done = func(j *digest.Job) {
			began := time.Now()
			n.do(func() { n.hashed(r.peer, j, f) })
			n.loads.told.Add(int64(time.Since(began)))
		}
		if err := n.hash.Submit(j); err != nil {
			return err
		}
	}
	m.Blocks = nil
	n.do(func() {
		if !m.Empty() {
			n.engine.Receive(n.now(), r.peer, m, nil)
		}
		n.drop(f)
	})
	return nil
}

// answer hands a message of the state lane to the loop, with the blocks of a walk that it may carry: in order and at once,
// because what ends the walk counts on all before it.
func (r *reader) answer(m *wire.Message, f *frame) error {
	n := r.n
	blocks := make([]dray.Block, 0, len(m.Blocks))
	for i := range m.Blocks {
		b, err := dray.Hashed(m.Blocks[i].Prefix, m.Blocks[i].Data)
		if err != nil {
			n.do(func() { n.engine.Offend(n.now(), r.peer, &exchange.Violation{What: err.Error()}) })
			f.left--
			continue
		}
		blocks = append(blocks, b)
	}
	m.Blocks = nil
	n.do(func() {
		refused := make(map[cid.Cid]int)
		for _, b := range n.engine.Receive(n.now(), r.peer, m, blocks) {
			refused[b.CID()]++
		}
		for _, b := range slices.Backward(blocks) { // of blocks that come twice, the first is taken
			if refused[b.CID()] > 0 {
				refused[b.CID()]--
				n.drop(f)
			} else {
				n.arrive(b, f)
			}
		}
		n.drop(f)
	})
	return nil
}

// hashed hands a block whose CID is now known to the engine.
func (n *Node) hashed(from dray.PeerID, j *digest.Job, f *frame) {
	if j.Err != nil {
		n.engine.Offend(n.now(), from, &exchange.Violation{What: j.Err.Error()})
		n.drop(f)
		return
	}
	one := [1]dray.Block{j.Block}
	if refused := n.engine.Receive(n.now(), from, nil, one[:]); len(refused) > 0 {
		n.drop(f)
		return
	}
	n.arrive(j.Block, f)
}
