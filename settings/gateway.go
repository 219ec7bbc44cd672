package settings

import (
	"errors"
	"time"
)

// Gateway says what the IPFS gateway serves, at /ipfs/.
type Gateway struct {
	// Enabled says whether there is one.
	Enabled bool `toml:"enabled" doc:"whether there is an IPFS gateway at /ipfs/"`
	// Fetch says whether it fetches from peers what is not in the home.
	Fetch bool `toml:"fetch" doc:"whether the gateway fetches from peers what is not in the home"`
	// Trustless says that it serves only what clients verify: blocks and CARs.
	Trustless bool `toml:"trustless" doc:"serve blocks and CARs only, which clients verify: no files, no listings"`
	// Timeout is how long a request may wait for peers without anything arriving.
	Timeout Duration `toml:"timeout" doc:"how long a request may wait for peers without anything arriving"`
	// Requests is how many are served at a time.
	Requests int `toml:"requests" doc:"how many requests are served at a time; more are refused with 429"`
	// Origins are the web pages' origins whose scripts may read answers, such as https://example.org, or "*" for all.
	Origins []string `toml:"origins" doc:"origins whose pages may read answers by script, or * for all (CORS)"`
}

func defaultGateway() Gateway {
	return Gateway{Enabled: true, Fetch: true, Timeout: Duration(30 * time.Second), Requests: 4096}
}

func (g *Gateway) check() error {
	return errors.Join(
		between("gateway.timeout", g.Timeout, Duration(100*time.Millisecond), Duration(time.Hour)),
		between("gateway.requests", g.Requests, 1, 1<<20),
	)
}
