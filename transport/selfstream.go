package transport

import (
	"io"
	"time"

	"dray"
)

// selfStream is one side of a stream from a host to itself. It goes through no network, and is like any other otherwise.
type selfStream struct {
	peer     dray.PeerID
	protocol Protocol
	in, out  *pipe
}

// newSelfStream returns both sides of a stream.
func newSelfStream(self dray.PeerID, protocol Protocol) (a, b *selfStream) {
	nowhere := func() *link { return &link{changed: make(chan struct{})} }
	const window = 256 << 10 // what a stream of the memory network holds
	there, back := newPipe(nowhere(), window), newPipe(nowhere(), window)
	return &selfStream{self, protocol, back, there}, &selfStream{self, protocol, there, back}
}

func (s *selfStream) Protocol() Protocol { return s.protocol }

func (s *selfStream) Read(b []byte) (int, error) {
	n, err := s.in.read(b)
	if err != nil && err != io.EOF {
		err = &dray.Error{Op: "read stream", Peer: s.peer, Err: err}
	}
	return n, err
}

func (s *selfStream) Write(b []byte) (int, error) {
	n, err := s.out.write(b)
	if err != nil {
		err = &dray.Error{Op: "write stream", Peer: s.peer, Err: err}
	}
	return n, err
}

func (s *selfStream) CloseWrite() error {
	s.out.finish()
	return nil
}

func (s *selfStream) Close() error {
	s.in.discard()
	return s.CloseWrite()
}

func (s *selfStream) Reset() error {
	for _, p := range []*pipe{s.in, s.out} {
		p.breakRead(time.Time{})
		p.breakWrite(time.Time{})
	}
	return nil
}

func (s *selfStream) SetReadDeadline(t time.Time) error {
	s.in.setDeadline(&s.in.readDeadline, t, s.in.readable)
	return nil
}

func (s *selfStream) SetWriteDeadline(t time.Time) error {
	s.out.setDeadline(&s.out.writeDeadline, t, s.out.writable)
	return nil
}
