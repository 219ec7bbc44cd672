package p2p

import (
	"io"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	libp2pyamux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-yamux/v5"
)

// The sizes that decide what a stream over TCP reaches. All are the receiver's to choose, or within what every
// implementation of yamux takes, so that any peer is served.
const (
	// minWindow is what a receiver grants on each stream when the peer is near. More would only take what is under way
	// out of the processor's cache, measured as 10 % more processor time for 8 MiB.
	minWindow = 1 << 20
	// maxWindow is what it grants when the peer is far, or when how far is not known.
	maxWindow = 16 << 20
	// wantedRate is what a stream should reach, in bytes a second: 1 Gbit/s and some, twice, because a window is renewed
	// when half of it is used up.
	wantedRate = 2 * 160e6
	// frameBytes is the largest frame that is sent, with its header: a power of two, because buffers are. Measured, larger
	// ones gain nothing, and what is urgent waits for a frame.
	frameBytes = 64 << 10
)

// muxer is yamux with this package's sizes.
type muxer struct {
	streams uint32 // how many a peer may open
}

func (m *muxer) config(roundTrip time.Duration) *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:      256,
		PingBacklog:        32,
		EnableKeepAlive:    true,
		KeepAliveInterval:  30 * time.Second,
		MeasureRTTInterval: 30 * time.Second,
		// A peer that takes nothing for this long is gone.
		ConnectionWriteTimeout:  10 * time.Second,
		MaxIncomingStreams:      m.streams,
		InitialStreamWindowSize: window(roundTrip),
		MaxStreamWindowSize:     window(roundTrip),
		LogOutput:               io.Discard,
		ReadBufSize:             0, // TLS, Noise and WebSocket have buffers of their own
		MaxMessageSize:          frameBytes,
	}
}

// window is the window of all streams of a connection with the given round trip, 0 if it is not known. It has its full size
// from the first frame on and never grows: small windows that double cost a round trip each, and in go-yamux 5.1 a
// window that doubles loses what was just used up of it, until sender and receiver wait for each other
// (TestThroughputOverDistance).
func window(roundTrip time.Duration) uint32 {
	if roundTrip <= 0 {
		return maxWindow
	}
	return uint32(min(max(roundTrip.Seconds()*wantedRate, minWindow), maxWindow))
}

// NewConn implements libp2p's network.Multiplexer.
func (m *muxer) NewConn(c net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	var account func() (yamux.MemoryManager, error)
	if scope != nil {
		account = func() (yamux.MemoryManager, error) { return scope.BeginSpan() }
	}
	start := yamux.Client
	if server {
		start = yamux.Server
	}
	s, err := start(c, m.config(roundTripOf(c)), account)
	if err != nil {
		return nil, err
	}
	return libp2pyamux.NewMuxedConn(s), nil
}
