package p2p

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"dray"
	"dray/transport"
)

// tcpConn is what a bulk stream needs of a TCP connection. *net.TCPConn has it, and so has what go-multiaddr wraps around
// one.
type tcpConn interface {
	net.Conn
	io.ReaderFrom
	CloseWrite() error
	SetLinger(seconds int) error
}

// lane is what the bytes of a bulk stream pass through: the TCP connection itself, or TLS on it.
type lane interface {
	io.ReadWriter
	CloseWrite() error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// bulkStream is a [transport.Stream] with a TCP connection of its own.
type bulkStream struct {
	plane    *plane
	conn     *conn
	protocol transport.Protocol
	kind     string // as in [transport.Info]
	seat     *seat
	tcp      tcpConn
	lane     lane

	ended  atomic.Uint32 // which directions are over: endedRead | endedWrite
	closed atomic.Bool
	freed  sync.Once
	// broken says that the connection has failed. The system says so once only, and then pretends an orderly end.
	broken atomic.Pointer[error]
}

// clearStream is a bulkStream that passes the bytes on as they are, so that the system may take them straight from a file.
type clearStream struct{ *bulkStream }

var _ transport.Exposed = clearStream{}

// Exposed implements [transport.Exposed].
func (s clearStream) Exposed() {}

// ReadFrom implements [io.ReaderFrom].
func (s clearStream) ReadFrom(r io.Reader) (int64, error) {
	if err := s.writable(); err != nil {
		return 0, s.fail("write stream", err)
	}
	n, err := s.tcp.ReadFrom(r)
	s.conn.passed(int(n))
	if err != nil {
		return n, s.fail("write stream", s.note(err))
	}
	return n, nil
}

// public returns the stream as the world sees it.
func (s *bulkStream) public() transport.Stream {
	if s.lane == lane(s.tcp) {
		return clearStream{s}
	}
	return s
}

func (s *bulkStream) Protocol() transport.Protocol { return s.protocol }

func (s *bulkStream) fail(op string, err error) error {
	return &dray.Error{Op: op, Peer: s.conn.Peer(), Err: cause(err)}
}

// note remembers an error that will last.
func (s *bulkStream) note(err error) error {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.broken.CompareAndSwap(nil, &err)
	}
	return err
}

func (s *bulkStream) Read(b []byte) (int, error) {
	if s.closed.Load() {
		return 0, s.fail("read stream", net.ErrClosed)
	}
	if s.ended.Load()&endedRead != 0 {
		return 0, io.EOF // the connection may be gone by now
	}
	n, err := s.lane.Read(b)
	s.conn.passed(n)
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		if broken := s.broken.Load(); broken != nil {
			return n, s.fail("read stream", *broken)
		}
		s.over(endedRead)
		return n, io.EOF
	}
	return n, s.fail("read stream", s.note(err))
}

// writable returns why nothing can be written any more, or nil.
func (s *bulkStream) writable() error {
	if s.closed.Load() || s.ended.Load()&endedWrite != 0 {
		return net.ErrClosed
	}
	return nil
}

func (s *bulkStream) Write(b []byte) (int, error) {
	if err := s.writable(); err != nil {
		return 0, s.fail("write stream", err)
	}
	n, err := s.lane.Write(b)
	s.conn.passed(n)
	if err != nil {
		return n, s.fail("write stream", s.note(err))
	}
	return n, nil
}

func (s *bulkStream) CloseWrite() error {
	if s.closed.Load() {
		return s.fail("close stream", net.ErrClosed)
	}
	err := s.lane.CloseWrite()
	s.over(endedWrite)
	if err != nil {
		return s.fail("close stream", s.note(err))
	}
	return nil
}

// over notes that a direction has ended in an orderly way, and frees the stream when both have.
func (s *bulkStream) over(direction uint32) {
	if s.ended.Or(direction)|direction == endedRead|endedWrite {
		s.free()
	}
}

const (
	// partTime and partBytes bound how long a closed stream waits for the other side to see that, while it throws away
	// what still comes. To close at once would be a reset to whoever is still writing, and take from it what it has not
	// read yet.
	partTime  = 10 * time.Second
	partBytes = 16 << 20
)

func (s *bulkStream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.seat.leave()
	if !s.plane.spawn(s.part) {
		return s.Reset()
	}
	return nil
}

// part ends the connection when both sides are done, or patience is at an end.
func (s *bulkStream) part() {
	until := time.Now().Add(partTime)
	_ = s.lane.SetWriteDeadline(until)
	_ = s.lane.SetReadDeadline(until)
	var err error
	if s.ended.Load()&endedWrite == 0 {
		err = s.lane.CloseWrite()
	}
	if err == nil && s.ended.Load()&endedRead == 0 {
		var n int64
		if n, err = io.Copy(io.Discard, io.LimitReader(s.lane, partBytes)); n == partBytes {
			err = transport.ErrReset
		}
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	s.free()
}

func (s *bulkStream) Reset() error {
	_ = s.tcp.SetLinger(0) // the other side is told by a reset
	s.free()
	return nil
}

// free closes the connection.
func (s *bulkStream) free() {
	s.freed.Do(func() {
		_ = s.tcp.Close()
		s.seat.leave()
		s.plane.strike(s)
	})
}

func (s *bulkStream) SetReadDeadline(t time.Time) error  { return gone(s.lane.SetReadDeadline(t)) }
func (s *bulkStream) SetWriteDeadline(t time.Time) error { return gone(s.lane.SetWriteDeadline(t)) }

// gone makes nothing of an error that says that the connection is closed: reads and writes say so.
func gone(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
