package transport

import (
	"io"
	"os"
	"sync"
	"time"

	"dray"
)

// pieceBytes is the most that a stream puts on a link at once, so that streams which share a link take turns.
const pieceBytes = 32 << 10

// pieces recycles the buffers of what is under way.
var pieces = sync.Pool{New: func() any { return new([pieceBytes]byte) }}

// memoryStream is one side of a stream.
type memoryStream struct {
	end      *memoryEnd
	protocol Protocol
	in, out  *pipe
}

func (s *memoryStream) Protocol() Protocol { return s.protocol }

func (s *memoryStream) Read(b []byte) (int, error) {
	n, err := s.in.read(b)
	if err == io.EOF {
		s.release()
	} else if err != nil {
		err = &dray.Error{Op: "read stream", Peer: s.end.other.host.id, Err: err}
	}
	return n, err
}

func (s *memoryStream) Write(b []byte) (int, error) {
	n, err := s.out.write(b)
	if err != nil {
		err = &dray.Error{Op: "write stream", Peer: s.end.other.host.id, Err: err}
	}
	return n, err
}

func (s *memoryStream) CloseWrite() error {
	s.out.finish()
	s.release()
	return nil
}

func (s *memoryStream) Close() error {
	s.in.discard()
	return s.CloseWrite()
}

func (s *memoryStream) Reset() error {
	// The other side learns of it when the news has crossed the link.
	arrival := s.end.out.send(headerBytes, time.Now())
	s.in.breakRead(time.Time{})
	s.in.breakWrite(arrival)
	s.out.breakWrite(time.Time{})
	s.out.breakRead(arrival)
	s.release()
	return nil
}

// release takes the stream off its connection once this side has nothing more to do with it. Reading to the end counts only
// together with CloseWrite or Close; until then a break of the connection must still be felt.
func (s *memoryStream) release() {
	if s.in.readerGone() && s.out.writerGone() {
		s.end.remove(s)
	}
}

func (s *memoryStream) SetReadDeadline(t time.Time) error {
	s.in.setDeadline(&s.in.readDeadline, t, s.in.readable)
	return nil
}

func (s *memoryStream) SetWriteDeadline(t time.Time) error {
	s.out.setDeadline(&s.out.writeDeadline, t, s.out.writable)
	return nil
}

// pipe is one direction of a stream: one side writes, the other reads.
type pipe struct {
	link     *link
	window   int
	readable chan struct{} // holds one wake-up for the reader
	writable chan struct{} // holds one wake-up for the writer

	mu                          sync.Mutex
	queue                       []piece // in order of arrival
	held                        int     // bytes in queue
	last                        time.Time
	finished                    bool // nothing more will be written
	discarded                   bool // nothing more will be read
	eof                         bool // the reader has seen the end
	readBreak, writeBreak       breakage
	readDeadline, writeDeadline time.Time
}

// breakage says whether and when one side of a pipe was reset. The side that did it feels it at once (the zero time), the
// other when the news has arrived.
type breakage struct {
	set bool
	at  time.Time
}

func (b breakage) felt(now time.Time, f fault) bool {
	return b.set && (b.at.IsZero() || !now.Before(b.at) && f != linkStalled)
}

// merge adds a breakage; an immediate one wins.
func (b *breakage) merge(at time.Time) {
	if !b.set || at.IsZero() {
		*b = breakage{set: true, at: at}
	}
}

// piece is bytes on their way. A piece without a buffer is the end of the stream.
type piece struct {
	buf        *[pieceBytes]byte
	start, end int
	arrival    time.Time
}

func newPipe(l *link, window int) *pipe {
	return &pipe{link: l, window: window, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *pipe) read(b []byte) (int, error) {
	for {
		now := time.Now()
		fault, changed := p.link.state()
		p.mu.Lock()
		switch {
		case p.discarded:
			p.mu.Unlock()
			return 0, dray.ErrClosed
		case p.readBreak.felt(now, fault):
			p.drop()
			p.mu.Unlock()
			return 0, ErrReset
		case p.eof:
			p.mu.Unlock()
			return 0, io.EOF
		case passed(p.readDeadline, now):
			p.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			p.mu.Unlock()
			return 0, nil
		}
		next := time.Time{}
		if len(p.queue) > 0 && fault != linkStalled {
			if next = p.queue[0].arrival; !next.After(now) {
				n := p.take(b, now)
				p.mu.Unlock()
				if n > 0 {
					wake(p.writable)
					return n, nil
				}
				return 0, io.EOF
			}
		}
		if p.readBreak.set && fault != linkStalled {
			next = earlier(next, p.readBreak.at)
		}
		next = earlier(next, p.readDeadline)
		p.mu.Unlock()
		pause(next, p.readable, changed)
	}
}

// take copies what has arrived. It returns 0 at the end of the stream. The caller holds mu.
func (p *pipe) take(b []byte, now time.Time) int {
	n := 0
	for n < len(b) && len(p.queue) > 0 && !p.queue[0].arrival.After(now) {
		q := &p.queue[0]
		if q.buf == nil {
			if n == 0 {
				p.eof = true
			}
			break
		}
		c := copy(b[n:], q.buf[q.start:q.end])
		n += c
		q.start += c
		p.held -= c
		if q.start == q.end {
			pieces.Put(q.buf)
			q.buf = nil
			p.queue = p.queue[1:]
		}
	}
	return n
}

func (p *pipe) write(b []byte) (int, error) {
	done := 0
	for {
		now := time.Now()
		fault, changed := p.link.state()
		p.mu.Lock()
		room := p.window - p.held
		switch {
		case done == len(b) && done > 0:
			p.mu.Unlock()
			return done, nil
		case p.finished:
			p.mu.Unlock()
			return done, dray.ErrClosed
		case p.writeBreak.felt(now, fault):
			p.mu.Unlock()
			return done, ErrReset
		case passed(p.writeDeadline, now):
			p.mu.Unlock()
			return done, os.ErrDeadlineExceeded
		case len(b) == 0:
			p.mu.Unlock()
			return 0, nil
		case p.discarded:
			// Nobody reads it: it crosses the link for nothing.
			n := min(len(b)-done, pieceBytes)
			p.link.send(n, now)
			done += n
			p.mu.Unlock()
			continue
		case room > 0:
			n := min(len(b)-done, room, pieceBytes)
			buf := pieces.Get().(*[pieceBytes]byte)
			copy(buf[:n], b[done:])
			p.push(piece{buf: buf, end: n}, n, now)
			p.held += n
			done += n
			p.mu.Unlock()
			wake(p.readable)
			continue
		}
		next := p.writeDeadline
		if p.writeBreak.set && fault != linkStalled {
			next = earlier(next, p.writeBreak.at)
		}
		p.mu.Unlock()
		pause(next, p.writable, changed)
	}
}

// push puts a piece on the link. The caller holds mu.
func (p *pipe) push(q piece, n int, now time.Time) {
	q.arrival = p.link.send(n, now)
	if q.arrival.Before(p.last) {
		q.arrival = p.last // the link became faster; a stream stays in order all the same
	}
	p.last = q.arrival
	p.queue = append(p.queue, q)
}

// finish is the writer's orderly end.
func (p *pipe) finish() {
	p.mu.Lock()
	if !p.finished && !p.writeBreak.set {
		p.finished = true
		p.push(piece{}, headerBytes, time.Now())
	}
	p.mu.Unlock()
	wake(p.readable)
	wake(p.writable)
}

// discard is the reader's orderly end: what comes is thrown away and the writer is not held up.
func (p *pipe) discard() {
	p.mu.Lock()
	p.discarded = true
	p.drop()
	p.mu.Unlock()
	wake(p.readable)
	wake(p.writable)
}

// breakRead and breakWrite reset one side of the pipe, from the given time on or, if it is zero, at once.
func (p *pipe) breakRead(at time.Time) {
	p.mu.Lock()
	p.readBreak.merge(at)
	if at.IsZero() {
		p.drop()
	}
	p.mu.Unlock()
	wake(p.readable)
	wake(p.writable)
}

func (p *pipe) breakWrite(at time.Time) {
	p.mu.Lock()
	p.writeBreak.merge(at)
	p.mu.Unlock()
	wake(p.writable)
}

// drop forgets what is under way. The caller holds mu.
func (p *pipe) drop() {
	for _, q := range p.queue {
		if q.buf != nil {
			pieces.Put(q.buf)
		}
	}
	p.queue, p.held = nil, 0
}

func (p *pipe) setDeadline(field *time.Time, t time.Time, c chan struct{}) {
	p.mu.Lock()
	*field = t
	p.mu.Unlock()
	wake(c)
}

func (p *pipe) readerGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.discarded || p.eof || p.readBreak.set
}

func (p *pipe) writerGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.finished || p.writeBreak.set
}

// passed reports whether a deadline is set and over.
func passed(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

// earlier returns the earlier of two times, of which the zero time means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// pause waits for a wake-up, a change of the link or a time (zero is never).
func pause(until time.Time, woken, changed <-chan struct{}) {
	if until.IsZero() {
		select {
		case <-woken:
		case <-changed:
		}
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-woken:
	case <-changed:
	case <-t.C:
	}
}
