package settings

import (
	"strings"
	"testing"
)

func TestReachMakesSense(t *testing.T) {
	for text, wrong := range map[string]string{
		`dht = "public"`:              "",
		`relay_data = "0B"`:           "",
		`relay_for = "0s"`:            "",
		`lan = false`:                 "",
		`dht = "ipfs"`:                "reach.dht",
		`relays = ["192.0.2.7:4001"]`: "reach.relays",
		`relays = ["/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"]`: "",
		`bootstrap = ["/ip4/192.0.2.7/tcp/4001"]`:                                                       "reach.bootstrap",
		`relay_data = "1KiB"`: "reach.relay_data",
		`relay_for = "1ms"`:   "reach.relay_for",
		`relay_peers = 0`:     "reach.relay_peers",
		`mdns = true`:         "reach.mdns",
	} {
		_, err := Read(Input{File: "config.toml", Text: []byte("[reach]\n" + text + "\n")})
		if (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v, want %q", text, err, wrong)
		}
	}
}
