package transport_test

import (
	"testing"

	"dray/transport"
)

func TestInfoInWords(t *testing.T) {
	for want, i := range map[string]transport.Info{
		"":                           {},
		"direct over tcp":            {Transport: "tcp", Remote: "/ip4/192.0.2.7/tcp/4001"},
		"relayed over quic-v1":       {Transport: "quic-v1", Relayed: true},
		"relayed over ws via 3sdfvR": {Transport: "ws", Relayed: true, Via: "peer"},
	} {
		if got := i.String(); got != want {
			t.Errorf("%+v is %q, want %q", i, got, want)
		}
	}
}
