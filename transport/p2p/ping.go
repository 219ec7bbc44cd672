package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"dray"
	"dray/transport"
)

// Ping implements [transport.Conn] with libp2p's ping protocol, which every libp2p host answers, on the path that new streams
// take.
func (c *conn) Ping(ctx context.Context) (time.Duration, error) {
	rtt, err := c.ping(ctx)
	if err == nil {
		return rtt, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return 0, &dray.Error{Op: "ping", Peer: c.Peer(), Err: err}
}

func (c *conn) ping(ctx context.Context) (time.Duration, error) {
	s, err := c.open(ctx, []transport.Protocol{ping.ID})
	if err != nil {
		return 0, err
	}
	return s.ping(ctx)
}

// ping asks for an answer on a stream of the ping protocol, and resets it.
func (s *stream) ping(ctx context.Context) (time.Duration, error) {
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	sent := make([]byte, ping.PingSize)
	_, _ = rand.Read(sent)
	start := time.Now()
	if _, err := s.Write(sent); err != nil {
		return 0, err
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(s, got); err != nil {
		return 0, err
	}
	if !bytes.Equal(got, sent) {
		return 0, errors.New("the answer to a ping is wrong")
	}
	return max(time.Since(start), time.Nanosecond), nil
}
