package p2p_test

import (
	"testing"

	"dray/transport"
	"dray/transport/p2p"
	"dray/transport/transporttest"
)

// TestSuite runs the conformance suite over every transport.
func TestSuite(t *testing.T) {
	for _, row := range []struct {
		name     string
		listen   string
		security []string
		streams  int
	}{
		{"TCP+TLS", "/ip4/127.0.0.1/tcp/0", []string{"tls"}, 0},
		{"TCP+Noise", "/ip4/127.0.0.1/tcp/0", []string{"noise"}, 0},
		{"QUIC", "/ip4/127.0.0.1/udp/0/quic-v1", nil, 0},
		{"WebSocket", "/ip4/127.0.0.1/tcp/0/ws", nil, 0},
		// QUIC carries 256 streams, and WebTransport needs some for itself.
		{"WebTransport", "/ip4/127.0.0.1/udp/0/quic-v1/webtransport", nil, 240},
	} {
		t.Run(row.name, func(t *testing.T) {
			transporttest.Suite{Streams: row.streams}.Run(t, func(*testing.T) transporttest.Factory {
				return func(t *testing.T) transport.Network {
					h, err := p2p.New(p2p.Config{Listen: []string{row.listen}, Security: row.security})
					if err != nil {
						t.Fatal(err)
					}
					return h
				}
			})
		})
	}
}

// TestLinks runs the suite of links over TCP and QUIC.
func TestLinks(t *testing.T) {
	for _, row := range []struct{ name, listen string }{
		{"TCP", "/ip4/127.0.0.1/tcp/0"},
		{"QUIC", "/ip4/127.0.0.1/udp/0/quic-v1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			transporttest.RunLinks(t, func(*testing.T) transporttest.Factory {
				return func(t *testing.T) transport.Network {
					h, err := p2p.New(p2p.Config{Listen: []string{row.listen}})
					if err != nil {
						t.Fatal(err)
					}
					return h
				}
			})
		})
	}
}
