package p2p

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// bulkALPN is what both sides name in TLS, so that the handshake cannot be taken for that of a libp2p connection.
const bulkALPN = "dray-bulk/1"

// The way of what is written to a sealed lane:
//
//  1. Write takes up to sealBytes; crypto/tls seals them, in records of 16 KiB.
//  2. Beneath crypto/tls, batch gathers the records: a system call for each would cost as much as the cipher.
//  3. flush writes them to the socket in one call, straight from the batch.
//  4. What the socket does not take before the deadline is written by a goroutine, because Write has said that it is on
//     its way, and because crypto/tls is of no use any more after a write that failed.

// sealBytes is how much is sealed before it is written.
const sealBytes = 256 << 10

// batchBytes has room for sealBytes in records of 16 KiB, for what a handshake writes, and for answers to updates of keys.
const batchBytes = sealBytes + 16<<10

var batches = sync.Pool{New: func() any { return new([batchBytes]byte) }}

// sealed is a [lane] with TLS 1.3.
type sealed struct {
	plane *plane
	tcp   tcpConn
	tls   *tls.Conn
	batch batch

	writing sync.Mutex // held by Write and CloseWrite
	// late is closed when what an earlier write has left is written, or lateErr is set. nil if nothing is left. Guarded by
	// writing.
	late    chan struct{}
	lateErr error

	// deadline is what SetWriteDeadline was given. While something is late it does not apply to the socket.
	mu       sync.Mutex // guards what follows
	deadline time.Time
	lifted   bool
	changed  chan struct{} // closed and replaced with deadline, while lifted
}

// shakeTLS makes a connection a sealed lane.
func (p *plane) shakeTLS(ctx context.Context, raw tcpConn, t *ticket, dialler bool) (*sealed, error) {
	s := &sealed{plane: p, tcp: raw}
	s.batch = batch{tcpConn: raw, shaking: true}
	config, _ := p.identity.ConfigForPeer(t.conn.id)
	config.NextProtos = []string{bulkALPN}
	config.DynamicRecordSizingDisabled = true // for short answers, not for bulk
	if dialler {
		hello := bulkHello{number: t.number, token: t.show}
		_, _ = s.batch.Write(hello.append(nil)) // goes with the first message of TLS
		s.tls = tls.Client(&s.batch, config)
	} else {
		s.tls = tls.Server(&s.batch, config)
	}
	if err := s.tls.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if got := s.tls.ConnectionState().NegotiatedProtocol; got != bulkALPN {
		return nil, fmt.Errorf("%w: TLS agreed on %q", errMalformed, got)
	}
	s.batch.shaking = false
	if err := s.flush(); err != nil {
		return nil, err
	}
	if dialler {
		return s, t.check(s)
	}
	_, err := s.Write(t.show[:])
	return s, err
}

func (s *sealed) Read(b []byte) (int, error) { return s.tls.Read(b) }

func (s *sealed) Write(b []byte) (n int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for len(b) > 0 {
		if err := s.catchUp(); err != nil {
			return n, err
		}
		k, err := s.tls.Write(b[:min(len(b), sealBytes)])
		n += k
		b = b[k:]
		if err == nil {
			err = s.flush()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *sealed) CloseWrite() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.catchUp(); err != nil {
		return err
	}
	if err := s.tls.CloseWrite(); err != nil {
		return err
	}
	return s.flush()
}

// flush writes what is sealed to the socket.
func (s *sealed) flush() error {
	buf, n := s.batch.take()
	if n == 0 {
		return nil
	}
	k, err := s.tcp.Write(buf[:n])
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		batches.Put(buf)
		return err
	}
	s.lift()
	late := make(chan struct{})
	s.late = late
	if !s.plane.spawn(func() {
		defer close(late)
		_, s.lateErr = s.tcp.Write(buf[k:n])
		batches.Put(buf)
	}) {
		return net.ErrClosed
	}
	return err
}

// catchUp waits until what earlier writes have left is written.
func (s *sealed) catchUp() error {
	if s.late == nil {
		return nil
	}
	for {
		deadline, changed := s.current()
		var passed <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			passed = t.C
		}
		select {
		case <-s.late:
			s.late = nil
			s.lower()
			return s.lateErr
		case <-passed:
			return os.ErrDeadlineExceeded
		case <-changed:
		}
	}
}

func (s *sealed) SetReadDeadline(t time.Time) error { return s.tcp.SetReadDeadline(t) }

func (s *sealed) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if !s.lifted {
		return s.tcp.SetWriteDeadline(t)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func (s *sealed) current() (time.Time, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadline, s.changed
}

// lift takes the deadline off the socket.
func (s *sealed) lift() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lifted, s.changed = true, make(chan struct{})
	_ = s.tcp.SetWriteDeadline(time.Time{})
}

// lower puts it back.
func (s *sealed) lower() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lifted = false
	_ = s.tcp.SetWriteDeadline(s.deadline)
}

// batch is the connection that crypto/tls sees: it reads from the socket and gathers what is written. Deadlines of writing
// are not its concern.
type batch struct {
	tcpConn
	shaking bool // a read writes out first what was gathered: the other side waits for it

	mu  sync.Mutex // guards what follows: a read may answer an update of keys
	buf *[batchBytes]byte
	n   int
}

func (b *batch) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf == nil {
		b.buf = batches.Get().(*[batchBytes]byte)
	}
	if b.n+len(p) > len(b.buf) {
		return 0, errMalformed // so many updates of keys nobody asks for in good faith
	}
	b.n += copy(b.buf[b.n:], p)
	return len(p), nil
}

func (b *batch) Read(p []byte) (int, error) {
	if b.shaking {
		if buf, n := b.take(); n > 0 {
			_, err := b.tcpConn.Write(buf[:n])
			batches.Put(buf)
			if err != nil {
				return 0, err
			}
		}
	}
	return b.tcpConn.Read(p)
}

// take returns what was gathered, and begins anew. The caller puts the buffer back.
func (b *batch) take() (*[batchBytes]byte, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	buf, n := b.buf, b.n
	b.buf, b.n = nil, 0
	return buf, n
}

func (b *batch) SetWriteDeadline(time.Time) error { return nil }

func (b *batch) SetDeadline(t time.Time) error { return b.tcpConn.SetReadDeadline(t) }
