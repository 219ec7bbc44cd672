package node

import (
	"sync/atomic"
	"time"

	"dray/transport"
)

// A link's blocks start on streams that share the peer's connection. Once so many were written that it pays, each
// writer has a bulk stream opened, in the background, and moves to it between two blocks. Between streams there is no
// order, so nothing needs to be drained.

const (
	// bulkAfter is how many bytes of blocks go to a peer before bulk streams are opened. It costs about three round trips
	// and a signature of each side, which is what a few MiB take.
	bulkAfter = 4 << 20
	// bulkPause is how long no more are tried after one could not be opened, or broke. That says nothing of the peer, who is
	// connected and gets its blocks on other streams, so it is no matter of its health.
	bulkPause = time.Minute
)

// bulkState is what the writers of a link have in common.
type bulkState struct {
	sent atomic.Int64 // bytes of blocks
	from atomic.Int64 // the node's time before which no bulk stream is opened
}

// pauseBulk keeps this link, and those with the same peer that follow it, from trying again what has just failed.
func (l *link) pauseBulk() {
	n := l.n
	from := n.now() + bulkPause
	l.bulk.from.Store(int64(from))
	n.do(func() {
		for id, t := range n.bulkFrom {
			if t <= n.now() {
				delete(n.bulkFrom, id)
			}
		}
		n.bulkFrom[l.peer] = from
	})
}

// mover takes one writer to a bulk stream. Owned by the writer.
type mover struct {
	// opened has one slot, for the stream, or nil if it could not be opened. nil unless one is being opened.
	opened chan transport.Stream
	moved  bool
}

// wrote is called when the writer has written blocks of so many bytes.
func (o *outStream) wrote(bytes int) {
	l := o.l
	sent := l.bulk.sent.Add(int64(bytes))
	if o.move.moved || o.stays {
		return
	}
	if o.move.opened == nil {
		b, ok := l.conn.(transport.Bulker)
		if ok && sent >= bulkAfter && int64(l.n.now()) >= l.bulk.from.Load() {
			o.openBulk(b)
		}
		return
	}
	select {
	case s := <-o.move.opened:
		o.move.opened = nil
		if s != nil {
			o.move.moved = true
			l.n.cfg.Log.Debug("blocks move to a bulk stream", "peer", l.peer, "sent", sent)
			o.s.Close()
			o.s, o.guess = s, false
		}
	default:
	}
}

// openBulk opens a bulk stream in the background. It ends with the link, like the writer's other streams.
func (o *outStream) openBulk(b transport.Bulker) {
	l, n, protocol := o.l, o.l.n, o.s.Protocol()
	opened := make(chan transport.Stream, 1)
	o.move.opened = opened
	n.wg.Go(func() {
		s, err := b.OpenBulk(l.ctx, protocol)
		if err != nil {
			n.cfg.Log.Debug("no bulk stream", "peer", l.peer, "err", err)
			l.pauseBulk()
			opened <- nil
			return
		}
		if !n.do(func() {
			if n.links[l.peer] != l {
				s.Reset()
				return
			}
			l.writing = append(l.writing, s)
		}) {
			s.Reset()
		}
		opened <- s
	})
}

// broke is called when a write has failed.
func (o *outStream) broke() {
	if o.move.moved {
		o.l.pauseBulk()
	}
}
