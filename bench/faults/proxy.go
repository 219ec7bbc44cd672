package faults

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pieceBytes is the most that a proxy forwards at once.
	pieceBytes = 16 << 10
	// packetBytes is what a proxy takes for a packet, when it changes one in so many.
	packetBytes = 1448
	// socketBytes bounds the sockets' buffers, so that what a fault holds up stays with its sender.
	socketBytes = 128 << 10
	// burst is how far the line may run ahead of its rate.
	burst = 5 * time.Millisecond
	// slowPieces is how many pieces a second a proxy forwards at least when it is slow.
	slowPieces = 4
)

// line is the getter's line: what comes down through all proxies together has its rate. It is safe for concurrent use.
type line struct {
	rate float64 // bytes a second

	mu    sync.Mutex
	free  time.Time // when all that was admitted has passed
	last  time.Time // when something came last
	gap   time.Duration
	bytes int64
}

// admit returns how long n bytes must wait.
func (l *line) admit(now time.Time, n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.free.Sub(now) - burst
}

// came notes bytes that reached the getter.
func (l *line) came(now time.Time, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() {
		l.gap = max(l.gap, now.Sub(l.last))
	}
	l.last = now
	l.bytes += int64(n)
}

// total returns how many bytes came.
func (l *line) total() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// longest returns the longest time without a byte, between the first and the last.
func (l *line) longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gap
}

// trouble is what is wrong with a proxy's path. The zero value is nothing.
type trouble struct {
	// frozen forwards nothing, and keeps connections open. New ones open too, and stay silent.
	frozen bool
	// rate, if positive, is in bytes a second down for each connection.
	rate float64
	// corrupt is the chance of each packet that comes down to have a byte changed.
	corrupt float64
	// cutAfter, if positive, ends each connection in an orderly way when so many bytes have come down on it.
	cutAfter int64
}

// phase is the trouble from one moment on. Changed is closed when another begins.
type phase struct {
	trouble
	changed chan struct{}
}

// proxy joins connections to one holder. It is safe for concurrent use.
type proxy struct {
	addr string // host:port that getters dial
	line *line
	dial func(ctx context.Context) (net.Conn, error)

	phase atomic.Pointer[phase]
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu     sync.Mutex
	ln     net.Listener // nil while connections are refused
	joints map[*joint]struct{}
	opened int
}

// newProxy listens, and joins each connection with one that dial returns.
func newProxy(l *line, dial func(ctx context.Context) (net.Conn, error)) (*proxy, error) {
	p := &proxy{line: l, dial: dial, joints: make(map[*joint]struct{})}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.phase.Store(&phase{changed: make(chan struct{})})
	if err := p.listen("127.0.0.1:0"); err != nil {
		return nil, err
	}
	p.addr = p.ln.Addr().String()
	return p, nil
}

func (p *proxy) listen(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.ln = ln
	p.mu.Unlock()
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.join(c.(*net.TCPConn)) })
		}
	})
	return nil
}

// close ends everything.
func (p *proxy) close() {
	p.stop()
	p.refuse()
	p.wg.Wait()
}

// set begins another phase.
func (p *proxy) set(t trouble) {
	close(p.phase.Swap(&phase{trouble: t, changed: make(chan struct{})}).changed)
}

// reset breaks every connection, as a host does that has forgotten them.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for j := range p.joints {
		j.breakOff()
	}
}

// refuse breaks every connection, and refuses new ones until accept.
func (p *proxy) refuse() {
	p.mu.Lock()
	if p.ln != nil {
		_ = p.ln.Close()
		p.ln = nil
	}
	p.mu.Unlock()
	p.reset()
}

// accept takes connections again after refuse.
func (p *proxy) accept() error { return p.listen(p.addr) }

// connections returns how many were made so far.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// joint is a connection of the getter's and one to the holder.
type joint struct {
	p              *proxy
	getter, holder net.Conn
	done           chan struct{} // closed when either pump has ended for good
	once           sync.Once
	down           int64 // owned by the pump that goes down
}

// breakOff ends both connections at once, with a reset where the protocol has one.
func (j *joint) breakOff() {
	for _, c := range []net.Conn{j.getter, j.holder} {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
	}
	j.end()
}

// end closes both connections.
func (j *joint) end() {
	j.once.Do(func() {
		close(j.done)
		_ = j.getter.Close()
		_ = j.holder.Close()
	})
}

func (p *proxy) join(getter *net.TCPConn) {
	defer getter.Close()
	_ = getter.SetWriteBuffer(socketBytes)
	holder, err := p.dial(p.ctx)
	if err != nil {
		_ = getter.SetLinger(0)
		return
	}
	j := &joint{p: p, getter: getter, holder: holder, done: make(chan struct{})}
	defer j.end()
	p.mu.Lock()
	refused := p.ln == nil
	if !refused {
		p.joints[j] = struct{}{}
		p.opened++
	}
	p.mu.Unlock()
	if refused {
		j.breakOff()
		return
	}
	defer func() {
		p.mu.Lock()
		delete(p.joints, j)
		p.mu.Unlock()
	}()
	var wg sync.WaitGroup
	wg.Go(func() { j.pump(holder, getter, false) })
	j.pump(getter, holder, true)
	wg.Wait()
}

// halfCloser is a connection whose one direction can end before the other.
type halfCloser interface{ CloseWrite() error }

// pump forwards what src says to dst until either breaks.
func (j *joint) pump(dst, src net.Conn, down bool) {
	buf := make([]byte, pieceBytes)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		n, err := src.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			ph := j.thawed()
			if ph == nil {
				return
			}
			piece := rest[:min(len(rest), ph.piece())]
			rest = rest[len(piece):]
			if !j.forward(dst, piece, down, ph, timer) {
				j.end()
				return
			}
		}
		if err != nil {
			// Even the end of a connection does not pass a path that is frozen.
			if j.thawed() == nil {
				return
			}
			if h, ok := dst.(halfCloser); !ok || h.CloseWrite() != nil {
				j.end()
			}
			return
		}
	}
}

// piece is how much is forwarded at once.
func (ph *phase) piece() int {
	if ph.rate > 0 {
		return max(1, min(pieceBytes, int(ph.rate/slowPieces)))
	}
	return pieceBytes
}

// thawed waits while the path is frozen. It returns nil when the joint has ended.
func (j *joint) thawed() *phase {
	for {
		ph := j.p.phase.Load()
		if !ph.frozen {
			return ph
		}
		select {
		case <-ph.changed:
		case <-j.done:
			return nil
		case <-j.p.ctx.Done():
			return nil
		}
	}
}

// forward writes one piece in its time, and reports whether the connection goes on.
func (j *joint) forward(dst net.Conn, piece []byte, down bool, ph *phase, timer *time.Timer) bool {
	var wait time.Duration
	if down {
		if wait = j.p.line.admit(time.Now(), len(piece)); ph.rate > 0 {
			wait = time.Duration(float64(len(piece)) / ph.rate * float64(time.Second))
		}
		ph.spoil(piece)
	}
	if wait > 0 {
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-j.done:
			return false
		case <-j.p.ctx.Done():
			return false
		}
	}
	if down && j.p.phase.Load().frozen && j.thawed() == nil {
		return false
	}
	if _, err := dst.Write(piece); err != nil {
		return false
	}
	if !down {
		return true
	}
	j.p.line.came(time.Now(), len(piece))
	j.down += int64(len(piece))
	return ph.cutAfter <= 0 || j.down < ph.cutAfter
}

// spoil changes a byte in some of the packets that a piece stands for.
func (ph *phase) spoil(piece []byte) {
	if ph.corrupt <= 0 {
		return
	}
	for at := 0; at < len(piece); at += packetBytes {
		packet := piece[at:min(at+packetBytes, len(piece))]
		// The last packet of a piece may be short, and is spoiled so much less often.
		if rand.Float64() < ph.corrupt*float64(len(packet))/packetBytes {
			packet[rand.IntN(len(packet))] ^= 1 << rand.IntN(8)
		}
	}
}
