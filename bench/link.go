package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// linkConfig describes a link between a client and a server, the same in both directions.
type linkConfig struct {
	// Delay is how long a byte takes from one end to the other once it is sent.
	Delay time.Duration
	// Rate is in bytes per second; if zero, the rate is unlimited.
	Rate float64
	// Queue is how much may wait to be sent, measured in time at Rate; if zero, 10 ms. A sender that is ahead by more
	// is held back, as by a full socket.
	Queue time.Duration
}

const (
	defaultQueue = 10 * time.Millisecond
	// linkPiece is the most bytes that the link sends at once: 16 KiB take 131 µs at 1 Gbit/s, so that two connections
	// share the rate finely.
	linkPiece = 16 << 10
	// linkPieces bounds how many pieces of one connection are under way in one direction.
	linkPieces = 4096
	// socketBuffer is the size of the link's own socket buffers, small so that what it cannot send stays with the
	// sender.
	socketBuffer = 256 << 10
)

// link is one direction of the path, shared by all connections through it. It is a clock of when the line is free next;
// since every piece's times are computed and not observed, late timers do not add up.
type link struct {
	cfg linkConfig

	mu   sync.Mutex
	free time.Time // when the line has sent all that was accepted so far
}

func newLink(cfg linkConfig) *link {
	if cfg.Queue == 0 {
		cfg.Queue = defaultQueue
	}
	return &link{cfg: cfg}
}

// admit returns when n bytes that are ready at now will have arrived at the other end.
func (l *link) admit(now time.Time, n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	if l.cfg.Rate > 0 {
		l.free = l.free.Add(time.Duration(float64(n) / l.cfg.Rate * float64(time.Second)))
	}
	return l.free.Add(l.cfg.Delay)
}

// holdBack returns how long a sender must wait at now before it may hand over more.
func (l *link) holdBack(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.free.After(now) {
		return 0
	}
	return l.free.Sub(now) - l.cfg.Queue
}

// piece is some bytes on their way.
type piece struct {
	buf *[linkPiece]byte
	n   int
	due time.Time
}

var pieceBuffers = sync.Pool{New: func() any { return new([linkPiece]byte) }}

// carry moves bytes from src to dst through l until src ends, then passes the end on. No byte arrives before opened. If
// m is not nil, it is told what arrives.
func (l *link) carry(ctx context.Context, dst, src *net.TCPConn, opened time.Time, m *meter) error {
	pieces := make(chan piece, linkPieces)
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		defer close(pieces)
		readErr = l.read(ctx, src, pieces, opened)
	})
	writeErr := l.write(ctx, dst, pieces, m)
	if writeErr != nil {
		_ = src.CloseRead()
	}
	for p := range pieces {
		pieceBuffers.Put(p.buf)
	}
	wg.Wait()
	return errors.Join(readErr, writeErr)
}

func (l *link) read(ctx context.Context, src *net.TCPConn, pieces chan<- piece, opened time.Time) error {
	timer := newPause()
	for {
		if err := timer.wait(ctx, l.holdBack(time.Now())); err != nil {
			return err
		}
		buf := pieceBuffers.Get().(*[linkPiece]byte)
		n, err := src.Read(buf[:])
		if n > 0 {
			ready := time.Now()
			if ready.Before(opened) {
				ready = opened
			}
			select {
			case pieces <- piece{buf: buf, n: n, due: l.admit(ready, n)}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func (l *link) write(ctx context.Context, dst *net.TCPConn, pieces <-chan piece, m *meter) error {
	timer := newPause()
	for p := range pieces {
		err := timer.wait(ctx, time.Until(p.due))
		if err == nil {
			_, err = dst.Write(p.buf[:p.n])
		}
		if m != nil && err == nil {
			m.arrive(p.n)
		}
		pieceBuffers.Put(p.buf)
		if err != nil {
			return err
		}
	}
	return dst.CloseWrite()
}

// pause is a timer that is waited for again and again.
type pause struct{ t *time.Timer }

func newPause() pause {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return pause{t}
}

// wait returns after d, or with an error when ctx ends. A d that is not positive costs nothing.
func (p pause) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	p.t.Reset(d)
	select {
	case <-p.t.C:
		return nil
	case <-ctx.Done():
		p.t.Stop()
		return ctx.Err()
	}
}

// relay accepts connections on ln and joins each with one to target through the two directions of a link, until ctx
// ends.
//
// A connection's first bytes arrive one round trip later than they were sent, because that is what opening it takes: a
// client of the relay sees its connection open at once, and without this the link's set-up would be free.
func relay(ctx context.Context, ln *net.TCPListener, target string, cfg linkConfig, m *meter) error {
	up, down := newLink(cfg), newLink(cfg)
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		client, err := ln.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		now := time.Now()
		m.open(now)
		wg.Go(func() { join(ctx, client, target, up, down, now.Add(2*cfg.Delay), m) })
	}
}

// join carries one connection. An error on either side ends both; the parties see it as a broken connection.
func join(ctx context.Context, client *net.TCPConn, target string, up, down *link, opened time.Time, m *meter) {
	defer client.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	for _, c := range []*net.TCPConn{client, server} {
		_ = c.SetReadBuffer(socketBuffer)
		_ = c.SetNoDelay(true)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if up.carry(ctx, server, client, opened, nil) != nil {
			_ = client.Close()
		}
	})
	// The server cannot know of the connection before the client's acknowledgement is there.
	if down.carry(ctx, client, server, opened.Add(up.cfg.Delay), m) != nil {
		_ = server.Close()
	}
	wg.Wait()
}

// firstPayload is how many bytes must have come back before some of them are surely payload: handshakes and the nodes
// above the leaves are smaller.
const firstPayload = 32 << 10

// meter watches what a relay hands to its clients.
type meter struct {
	mu     sync.Mutex
	opened time.Time     // when the first connection was
	down   int64         // bytes that reached clients
	first  time.Duration // from opened until firstPayload of them had; zero before
}

// open notes a connection.
func (m *meter) open(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opened.IsZero() {
		m.opened = now
	}
}

// arrive notes bytes that reached a client.
func (m *meter) arrive(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.down
	m.down += int64(n)
	if before < firstPayload && m.down >= firstPayload {
		m.first = time.Since(m.opened)
	}
}

// relayed is the last line of the link role's output.
type relayed struct {
	// Down is how many bytes reached the client, and First how many seconds after the first connection the first
	// firstPayload of them had; zero if there were not so many.
	Down  int64   `json:"down"`
	First float64 `json:"first_seconds"`
}

// runLink relays TCP connections to -target through a link until it is told to stop.
func runLink(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("link", flag.ContinueOnError)
	target := fs.String("target", "", "host:port to relay to")
	delay := fs.Duration("delay", 25*time.Millisecond, "delay each way")
	rate := fs.Float64("rate", 1e9, "bits per second each way")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := printJSON(listening{Addr: ln.Addr().String()}); err != nil {
		return err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("listener is a %T", ln)
	}
	var m meter
	if err := relay(ctx, tcp, *target, linkConfig{Delay: *delay, Rate: *rate / 8}, &m); err != nil {
		return err
	}
	return printJSON(relayed{Down: m.down, First: m.first.Seconds()})
}
