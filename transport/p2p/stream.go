package p2p

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"dray"
	"dray/transport"
)

// A stream begins with multistream-select 1.0.0: each side sends lines, each with its length before it. The opener
// sends the header and its proposal; the other echoes both, or answers the proposal with "na".
const (
	selectHeader = "/multistream/1.0.0"
	selectNo     = "na"
	maxLine      = 1024 // what go-multistream, too, takes at most
)

// answerTimeout is how long Close waits for the answer to a proposal before it stops reading. Closing earlier would break
// the other side's negotiation over QUIC, and lose what was written.
const answerTimeout = 10 * time.Second

// stream is a [transport.Stream].
type stream struct {
	conn     *conn
	s        network.Stream
	protocol transport.Protocol

	// The rest is for streams that were proposed and not yet agreed.
	proposeOnce sync.Once
	proposeErr  error
	answerMu    sync.Mutex  // held while the answer is read
	answered    atomic.Bool // the answer was read and was yes
	answerErr   error       // guarded by answerMu: the answer was no, or could not be read
	heard       []byte      // guarded by answerMu: what was read of the answer before a deadline passed

	ended atomic.Uint32 // which directions are over: endedRead | endedWrite
}

const (
	endedRead = 1 << iota
	endedWrite
)

// newAccepted wraps a stream that both sides have agreed on.
func newAccepted(c *conn, s network.Stream, p transport.Protocol) *stream {
	st := &stream{conn: c, s: s, protocol: p}
	st.proposeOnce.Do(func() {})
	st.answered.Store(true)
	return st
}

// newProposed wraps a stream whose protocol is proposed with the first write and confirmed by the first read.
func newProposed(c *conn, s network.Stream, p transport.Protocol) *stream {
	return &stream{conn: c, s: s, protocol: p}
}

func (s *stream) Protocol() transport.Protocol { return s.protocol }

func (s *stream) fail(op string, err error) error {
	return &dray.Error{Op: op, Peer: s.conn.Peer(), Err: cause(err)}
}

func (s *stream) Read(b []byte) (int, error) {
	if !s.answered.Load() {
		if err := s.answer(); err != nil {
			return 0, s.fail("read stream", err)
		}
	}
	n, err := s.s.Read(b)
	s.conn.passed(n)
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		s.over(endedRead)
		return n, err
	}
	return n, s.fail("read stream", err)
}

func (s *stream) Write(b []byte) (int, error) {
	n := 0
	s.proposeOnce.Do(func() {
		n, s.proposeErr = s.propose(b)
	})
	if s.proposeErr != nil {
		return n, s.fail("write stream", s.proposeErr)
	}
	if n == len(b) {
		return n, nil
	}
	m, err := s.s.Write(b[n:])
	s.conn.passed(m)
	if err != nil {
		return n + m, s.fail("write stream", err)
	}
	return n + m, nil
}

// propose sends the proposal, in one piece with the beginning of b, and returns how much of b it sent.
func (s *stream) propose(b []byte) (int, error) {
	const piece = 16 << 10 // one TLS record
	head := appendLine(appendLine(make([]byte, 0, 128), selectHeader), string(s.protocol))
	n := min(len(b), piece-len(head))
	all := len(head) + n
	sent, err := s.s.Write(append(head, b[:n]...))
	if err != nil {
		return max(0, n-(all-sent)), err
	}
	return n, nil
}

// flush sends the proposal if nothing has been written yet.
func (s *stream) flush() error {
	s.proposeOnce.Do(func() { _, s.proposeErr = s.propose(nil) })
	return s.proposeErr
}

// answer reads the other side's answer to the proposal, once.
func (s *stream) answer() error {
	if err := s.flush(); err != nil {
		return err
	}
	s.answerMu.Lock()
	defer s.answerMu.Unlock()
	if s.answered.Load() || s.answerErr != nil {
		return s.answerErr
	}
	again := &rereader{r: s.s, seen: s.heard}
	err := readAnswer(again, s.protocol, true)
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		s.answered.Store(true)
		s.heard = nil
	case errors.As(err, &timeout) && timeout.Timeout():
		s.heard = again.seen
	case errors.Is(cause(err), transport.ErrReset):
		err = fmt.Errorf("%w: %s: %w", transport.ErrRefused, s.protocol, cause(err))
		s.answerErr = err
	default:
		s.answerErr = err
	}
	return err
}

// rereader reads first what was seen before and then on from r, and remembers all.
type rereader struct {
	r    io.Reader
	seen []byte
	at   int
}

func (r *rereader) Read(b []byte) (int, error) {
	if r.at < len(r.seen) {
		n := copy(b, r.seen[r.at:])
		r.at += n
		return n, nil
	}
	n, err := r.r.Read(b)
	r.seen = append(r.seen, b[:n]...)
	r.at += n
	return n, err
}

func (s *stream) CloseWrite() error {
	if err := s.flush(); err != nil {
		return s.fail("close stream", err)
	}
	err := s.s.CloseWrite()
	s.over(endedWrite)
	if err != nil {
		return s.fail("close stream", err)
	}
	return nil
}

// over notes that a direction has ended in an orderly way, and frees the stream when both have.
func (s *stream) over(direction uint32) {
	if s.ended.Or(direction)|direction == endedRead|endedWrite {
		_ = s.s.Close()
	}
}

func (s *stream) Close() error {
	if s.answered.Load() {
		// The only error is that the other side has stopped reading, or the connection is gone; then there is nothing left
		// to close.
		_ = s.s.Close()
		return nil
	}
	err := s.flush()
	if err == nil {
		err = s.s.CloseWrite()
	}
	ok := err == nil && s.conn.host.spawn(func() {
		_ = s.s.SetReadDeadline(time.Now().Add(answerTimeout))
		if s.answer() == nil {
			_ = s.s.Close()
		} else {
			_ = s.s.Reset()
		}
	})
	if !ok {
		_ = s.s.Reset()
	}
	if err != nil {
		return s.fail("close stream", err)
	}
	return nil
}

func (s *stream) Reset() error { return s.s.Reset() }

func (s *stream) SetReadDeadline(t time.Time) error  { return s.s.SetReadDeadline(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.s.SetWriteDeadline(t) }

// negotiate agrees on the first of protocols that the peer accepts: one round trip if it is the first, and after a
// refusal one more, because by then the peer has mostly said what it speaks.
func (c *conn) negotiate(ctx context.Context, s network.Stream, protocols []transport.Protocol) (transport.Protocol, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	header := true
	for len(protocols) > 0 {
		p := protocols[0]
		var line []byte
		if header {
			line = appendLine(line, selectHeader)
		}
		_, err := s.Write(appendLine(line, string(p)))
		if err == nil {
			err = readAnswer(s, p, header)
		}
		header = false
		switch {
		case err == nil:
			return p, nil
		case ctx.Err() != nil:
			return "", ctx.Err()
		case !errors.Is(err, transport.ErrRefused):
			return "", cause(err)
		}
		protocols = protocols[1:]
		if k := c.known(protocols); k != "" {
			for protocols[0] != k {
				protocols = protocols[1:]
			}
		}
	}
	return "", fmt.Errorf("%w: the peer speaks none of them", transport.ErrRefused)
}

// appendLine appends a line of multistream-select.
func appendLine(b []byte, text string) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)+1))
	b = append(b, text...)
	return append(b, '\n')
}

// readAnswer reads the header, if it is still to come, and the answer to the proposal of p.
func readAnswer(r io.Reader, p transport.Protocol, header bool) error {
	if header {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		if line != selectHeader {
			return fmt.Errorf("%w: the peer answered %q instead of %q", transport.ErrReset, line, selectHeader)
		}
	}
	switch line, err := readLine(r); {
	case err != nil:
		return err
	case line == string(p):
		return nil
	case line == selectNo:
		return fmt.Errorf("%w: %s", transport.ErrRefused, p)
	default:
		return fmt.Errorf("%w: the peer answered %q to %q", transport.ErrReset, line, p)
	}
}

// readLine reads one line and not a byte more.
func readLine(r io.Reader) (string, error) {
	var one [1]byte
	size := uint64(0)
	for shift := 0; ; shift += 7 {
		if shift > 14 {
			return "", fmt.Errorf("%w: negotiation line too long", transport.ErrReset)
		}
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return "", unexpected(err)
		}
		size |= uint64(one[0]&0x7f) << shift
		if one[0] < 0x80 {
			break
		}
	}
	if size == 0 || size > maxLine {
		return "", fmt.Errorf("%w: negotiation line of %d bytes", transport.ErrReset, size)
	}
	line := make([]byte, size)
	if _, err := io.ReadFull(r, line); err != nil {
		return "", unexpected(err)
	}
	if line[size-1] != '\n' {
		return "", fmt.Errorf("%w: negotiation line without an end", transport.ErrReset)
	}
	return string(line[:size-1]), nil
}

// unexpected makes an end of the stream inside a line an error of its own: it must not pass for the end of the content.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
