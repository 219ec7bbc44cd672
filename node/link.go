package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/transport"
	"dray/wire"
)

const (
	openTimeout  = 30 * time.Second
	writeTimeout = 2 * time.Minute // for one message; a peer that takes none for so long is disconnected
	batchBytes   = 64 << 10        // small blocks are sent together up to this size
	blockQueue   = 2048            // twice what the engine keeps of a peer's wants: pushing never waits
)

// link is one connected peer: what is written to it and the streams that it opened. Owned by loop, save for its
// goroutines, which own what they are handed.
type link struct {
	n        *Node
	peer     dray.PeerID
	conn     transport.Conn
	voice    *voice // what the engine says to the peer
	out      *transport.Dispatcher
	blocks   chan []outBlock // bounded by what the engine keeps of the peer's wants
	ctx      context.Context
	cancel   context.CancelFunc
	version  wire.Version // what the peer speaks; 0 until known
	readers  map[*reader]struct{}
	writing  []transport.Stream // opened by us
	any      atomic.Bool        // the preferred version was refused: offer the others
	heard    atomic.Uint32      // the version that the peer used towards us, or 0
	failures int                // in a row
	arriving *budget            // of frames that have begun and not ended
	bulk     bulkState

	// Guarded blocks whose writer has moved to where others can read go to a writer that never does, begun when first needed.
	sealed  chan []outBlock
	sealing sync.Once
	revoked atomic.Uint32 // how often the peer was denied what was on its way to it
}

// outBlock is a block to write: wire.MaxBlockHeader bytes of room, then its bytes.
type outBlock struct {
	cid     cid.Cid
	frame   []byte
	guarded bool   // it must not go where others can read
	revoked uint32 // the link's count when it was handed over
}

func protocols() []transport.Protocol {
	var out []transport.Protocol
	for _, id := range wire.Protocols() {
		out = append(out, transport.Protocol(id))
	}
	return out
}

func capsOf(v wire.Version) exchange.Caps {
	return exchange.Caps{Protocol: v.Protocol(), Haves: v.Haves(), Indexes: v.Indexes()}
}

// peerUp and peerDown are called by the network.
func (n *Node) peerUp(conn transport.Conn) { n.do(func() { n.knock(conn) }) }

func (n *Node) peerDown(id dray.PeerID) {
	n.do(func() {
		if l := n.links[id]; l != nil {
			n.removeLink(l)
		}
		n.guestGone(id)
	})
}

func (n *Node) openLink(conn transport.Conn) { n.openLinkAs(conn, false, 0) }

func (n *Node) openLinkAs(conn transport.Conn, anyVersion bool, failures int) {
	id := conn.Peer()
	if reason, banned := n.engine.Banned(n.now(), id); banned {
		n.cfg.Log.Debug("refusing a banned peer", "peer", id, "reason", reason)
		n.wg.Go(func() { conn.Close() })
		return
	}
	if n.links[id] != nil {
		return
	}
	l := &link{
		n: n, peer: id, conn: conn,
		blocks:  make(chan []outBlock, blockQueue),
		readers: make(map[*reader]struct{}), failures: failures,
		arriving: newBudget(2 * wire.MaxFrameSize),
		sealed:   make(chan []outBlock, blockQueue),
	}
	l.any.Store(anyVersion)
	l.ctx, l.cancel = context.WithCancel(n.ctx)
	n.links[id] = l
	l.bulk.from.Store(int64(n.bulkFrom[id]))
	l.voice = l.newVoice()
	l.out = l.voice.dispatch()
	n.wg.Go(func() { <-l.ctx.Done(); l.out.Close() })
	for range n.cfg.Streams {
		n.wg.Go(func() { l.writeBlocks(l.blocks, false) })
	}
	assumed := wire.Swap1 // a refusal shows soon, and costs nothing but a round trip
	if anyVersion {
		assumed = wire.V120
	}
	path := conn.Info()
	if !path.Relayed && private(path.Remote) {
		n.engine.Near(n.now(), id)
	}
	n.engine.PeerUp(n.now(), id, capsOf(assumed))
	n.event(PeerConnected{Peer: id, Info: path})
}

// closeLink disconnects a peer. The network then reports it gone.
func (n *Node) closeLink(l *link) {
	n.removeLink(l)
	n.wg.Go(func() { l.conn.Close() })
}

func (n *Node) removeLink(l *link) {
	if n.links[l.peer] != l {
		return
	}
	delete(n.links, l.peer)
	n.departed(l)
	l.cancel()
	l.arriving.close()
	for r := range l.readers {
		r.s.Reset()
	}
	for _, s := range l.writing {
		s.Reset()
	}
	n.stopWalks(l.peer)
	n.engine.PeerDown(n.now(), l.peer)
	n.event(PeerGone{Peer: l.peer})
}

func (n *Node) streamOpened(r *reader) {
	switch l := n.links[r.peer]; {
	case l != nil:
		n.attach(l, r)
	case !n.guestKnocks(r):
		r.s.Reset()
	}
}

// attach makes a stream one of a link's.
func (n *Node) attach(l *link, r *reader) {
	l.readers[r] = struct{}{}
	r.arriving = l.arriving
	l.heard.Store(uint32(r.version))
	n.speaks(l, r.version)
}

func (n *Node) streamClosed(r *reader) {
	if l := n.links[r.peer]; l != nil {
		delete(l.readers, r)
	}
	if r.guest != nil {
		delete(r.guest.readers, r)
	}
}

// speaks notes which version of the protocol a peer understands.
func (n *Node) speaks(l *link, v wire.Version) {
	if n.links[l.peer] != l || l.version == v {
		return
	}
	l.version = v
	n.engine.PeerUp(n.now(), l.peer, capsOf(v))
}

func (l *link) protocolName() string {
	if l.version == 0 {
		return ""
	}
	return l.version.Protocol()
}

// outStream is a stream for writing, opened when it is first needed and again after a refusal. Owned by one writer.
type outStream struct {
	l       *link
	s       transport.Stream
	version wire.Version
	guess   bool // that the peer speaks the version, which nobody has said
	move    mover
	stays   bool // it does not move
}

// open makes the stream ready. A stream to a peer whose protocols are not known yet is proposed with the preferred one
// only, which costs no round trip; a refusal shows in the first read, or in a write, and then the others are offered.
func (o *outStream) open() error {
	if o.s != nil {
		return nil
	}
	heard := wire.Version(o.l.heard.Load())
	o.guess = heard == 0 && !o.l.any.Load()
	offer := o.l.offer(heard)
	ctx, cancel := context.WithTimeout(o.l.ctx, openTimeout)
	defer cancel()
	s, err := o.l.conn.Open(ctx, offer...)
	if err != nil {
		return err
	}
	v, ok := wire.ParseVersion(string(s.Protocol()))
	if !ok {
		s.Reset()
		return errors.New("the peer agreed on an unknown protocol")
	}
	o.s, o.version = s, v
	l, guess := o.l, o.guess
	l.n.wg.Go(func() { l.watch(s, guess) })
	l.n.do(func() {
		if l.n.links[l.peer] != l {
			s.Reset() // a writer that waits for room would wait for its deadline
			return
		}
		l.writing = append(l.writing, s)
	})
	return nil
}

func (o *outStream) write(b []byte) error {
	if err := o.s.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := o.s.Write(b)
	return err
}

func (o *outStream) reset() {
	if o.s != nil {
		o.s.Reset()
		o.s = nil
	}
}

// watch reads from an outgoing stream, on which peers write nothing, to learn of a refusal at once.
func (l *link) watch(s transport.Stream, guess bool) {
	var b [1]byte
	_, err := s.Read(b[:])
	refused := errors.Is(err, transport.ErrRefused)
	switch {
	case guess && (refused || l.heard.Load() != uint32(wire.Swap1) && l.ctx.Err() == nil):
		// A refusal may look like a stream that broke, when the reset overtakes the answer. Until that reset has come, writes go
		// on succeeding: what is said again must not go there.
		s.Reset()
		l.fallBack()
	case refused && !guess:
		l.n.do(func() { l.n.refused(l) })
	}
}

// fallBack offers the peer the other versions from now on, once. What the engine announced is announced again; what the
// peer has said stands.
func (l *link) fallBack() {
	n := l.n
	if l.any.CompareAndSwap(false, true) {
		n.do(func() {
			if n.links[l.peer] == l {
				n.engine.Restart(n.now(), l.peer, capsOf(max(l.version, wire.V120)))
			}
		})
	}
}

// refusedGuess reports whether a stream that broke was proposed with a version that the peer may not speak. It is opened
// again then, with what the peer says it speaks.
func (o *outStream) refusedGuess() bool {
	if !o.guess || o.l.heard.Load() == uint32(wire.Swap1) || o.l.ctx.Err() != nil {
		return false
	}
	o.reset()
	o.guess = false
	o.l.fallBack()
	return true
}

// offer is what the peer is asked to speak: what it is known to, or the preferred version, or after a refusal any.
func (l *link) offer(v wire.Version) []transport.Protocol {
	switch {
	case v != 0:
		return []transport.Protocol{transport.Protocol(v.Protocol())}
	case l.any.Load():
		return protocols()[1:]
	}
	return protocols()[:1]
}

// writeBlocks writes blocks to the peer on one stream. A link has a few such writers; each takes the next block when its
// stream has room, so a slow stream takes fewer. One that stays uses no stream on which others could read.
func (l *link) writeBlocks(from <-chan []outBlock, stays bool) {
	n := l.n
	o := outStream{l: l, stays: stays}
	defer o.reset()
	var buf []byte
	for {
		var batch []outBlock
		select {
		case <-l.ctx.Done():
			return
		case batch = <-from:
		}
		for size := sizeOf(batch); size < batchBytes; {
			select {
			case more := <-from:
				batch = append(batch, more...)
				size += sizeOf(more)
				continue
			default:
			}
			break
		}
		if batch = l.withheld(batch); len(batch) == 0 || o.exposed() && l.seal(batch) {
			continue
		}
		err := o.open()
		if err == nil {
			buf, err = o.writeBatch(buf[:0], batch)
		}
		if err != nil && o.refusedGuess() {
			if err = o.open(); err == nil {
				buf, err = o.writeBatch(buf[:0], batch)
			}
		}
		if err != nil {
			o.broke()
			n.do(func() { n.linkFailed(l, err) })
			return
		}
		o.wrote(sizeOf(batch))
		n.do(func() {
			for _, b := range batch {
				n.buffers.put(b.frame)
				if n.links[l.peer] == l {
					n.engine.BlockSent(n.now(), l.peer, b.cid)
				}
			}
		})
	}
}

func sizeOf(batch []outBlock) int {
	size := 0
	for _, b := range batch {
		size += len(b.frame)
	}
	return size
}

// writeBatch writes blocks: one by itself as it lies in its buffer, several small ones in one message.
func (o *outStream) writeBatch(buf []byte, batch []outBlock) ([]byte, error) {
	if len(batch) == 1 {
		out, err := wire.PutBlockHeader(batch[0].frame, o.version, batch[0].cid.Prefix(), 0)
		if err != nil {
			return buf, err
		}
		return buf, o.write(out)
	}
	m := wire.Message{Blocks: make([]wire.Block, len(batch))}
	for i, b := range batch {
		m.Blocks[i] = wire.Block{Prefix: b.cid.Prefix(), Data: b.frame[wire.MaxBlockHeader:]}
	}
	buf, err := wire.AppendMessage(buf, o.version, &m)
	if err != nil {
		return buf, err
	}
	return buf, o.write(buf)
}

const maxFailures = 3 // in a row, after which the connection is given up

// linkFailed starts a link over after a stream broke: what was announced to the peer may be lost, so all of it is
// announced again.
func (n *Node) linkFailed(l *link, err error) {
	if n.links[l.peer] != l {
		return
	}
	n.cfg.Log.Debug("stream failed", "peer", l.peer, "err", err)
	if l.failures++; l.failures >= maxFailures || l.version.Indexes() {
		n.closeLink(l) // TensorSwap's state belongs to the connection: both sides begin again
		return
	}
	n.reopen(l, l.any.Load())
}

// refused gives a link up when the peer speaks none of the versions: it is connected, but not for us.
func (n *Node) refused(l *link) {
	if n.links[l.peer] == l {
		n.removeLink(l)
	}
}

func (n *Node) reopen(old *link, anyVersion bool) {
	n.removeLink(old)
	n.openLinkAs(old.conn, anyVersion, old.failures)
}
