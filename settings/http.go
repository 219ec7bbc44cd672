package settings

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// HTTP says where and to whom the daemon speaks HTTP.
type HTTP struct {
	// Listen is the TCP address, HOST:PORT. "off" means that there is no HTTP.
	Listen string `toml:"listen" doc:"where HTTP is served: HOST:PORT (port 0 is any), or off"`
	// Token is what clients must say. Beyond loopback there must be one, or a ClientCA.
	Token string `toml:"token" secret:"true" doc:"what clients must say in the header Authorization: Bearer TOKEN; 16 characters or more"`
	// TokenFile is a file with the token, for those who would rather not have it in this one.
	TokenFile string `toml:"token_file" doc:"file with the token, in place of http.token; relative to the home"`
	// Cert and Key are files with the certificate and key of the server, in PEM. With them it speaks TLS and HTTP/2.
	Cert string `toml:"cert" doc:"file with the server's certificate in PEM, for TLS; relative to the home"`
	Key  string `toml:"key" doc:"file with the certificate's key in PEM; relative to the home"`
	// ClientCA is a file with the certificates of those who sign clients' certificates.
	ClientCA string `toml:"client_ca" doc:"file with the authorities in PEM that sign clients' certificates, for mutual TLS; relative to the home"`
	// Hosts are names by which clients may call this server. If empty, names of loopback on loopback, and any with a token or TLS.
	Hosts []string `toml:"hosts" doc:"names, without ports, by which clients may call this server, besides loopback's"`
	// Connections bounds those there are at a time, and ConnectionsPerAddress those of one client that wait for a request.
	Connections           int `toml:"connections" doc:"most connections at a time; beyond it, the one that has waited longest for a request is closed"`
	ConnectionsPerAddress int `toml:"connections_per_address" doc:"the same for one address other than loopback, not counting those that are being answered"`
	// HeaderTimeout is how long a request's header may take to arrive, IdleTimeout how long a connection may be without one.
	HeaderTimeout Duration `toml:"header_timeout" doc:"how long a request's header may take to arrive"`
	IdleTimeout   Duration `toml:"idle_timeout" doc:"how long a connection may stay without a request"`
	// Drain is how long requests may take to end after SIGTERM.
	Drain Duration `toml:"drain" doc:"how long requests may take to end after SIGTERM, at most 8s"`
}

// HTTPOff is the value of http.listen that means that there is no HTTP.
const HTTPOff = "off"

func defaultHTTP() HTTP {
	return HTTP{
		Listen: "127.0.0.1:4871", Connections: 4096, ConnectionsPerAddress: 1024,
		HeaderTimeout: Duration(10 * time.Second), IdleTimeout: Duration(time.Minute), Drain: Duration(5 * time.Second),
	}
}

// leastToken is the shortest token: one that a person makes up is guessed, and `dray config init` can make a good one.
const leastToken = 16

func (h *HTTP) check() error {
	var errs []error
	wrong := func(key string, value any, right string) { errs = append(errs, Wrong("http."+key, value, right)) }
	if h.Listen != HTTPOff {
		host, port, err := net.SplitHostPort(h.Listen)
		n, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || bad != nil || strings.ContainsAny(host, "/ ") {
			wrong("listen", h.Listen, "HOST:PORT, such as 127.0.0.1:4871, or off")
		} else if n == 0 && port != "0" {
			wrong("listen", h.Listen, "a port between 0 (any) and 65535")
		}
	}
	if h.Token != "" {
		if why := BadToken(h.Token); why != nil {
			errs = append(errs, fmt.Errorf("http.token %w", why))
		}
		if h.TokenFile != "" {
			wrong("token_file", h.TokenFile, "not set, because http.token is: only one of them may be")
		}
	}
	if (h.Cert == "") != (h.Key == "") {
		wrong("cert", h.Cert, "set together with http.key, or neither")
	}
	if h.ClientCA != "" && h.Cert == "" {
		wrong("client_ca", h.ClientCA, "set together with http.cert and http.key, because clients show certificates over TLS only")
	}
	for _, name := range h.Hosts {
		if name == "" || strings.ContainsAny(name, "/ :*") && net.ParseIP(name) == nil {
			wrong("hosts", name, "names or IP addresses without ports, such as models.example")
		}
	}
	return errors.Join(append(errs,
		between("http.connections", h.Connections, 16, 1<<20),
		between("http.connections_per_address", h.ConnectionsPerAddress, 1, 1<<20),
		between("http.header_timeout", h.HeaderTimeout, Duration(100*time.Millisecond), Duration(5*time.Minute)),
		between("http.idle_timeout", h.IdleTimeout, Duration(time.Second), Duration(time.Hour)),
		between("http.drain", h.Drain, 0, Duration(8*time.Second)),
	)...)
}

// BadToken says why a text cannot be a token, without the text; nil if it can.
func BadToken(s string) error {
	switch {
	case len(s) < leastToken:
		return fmt.Errorf("has %d characters; right are %d or more, which `dray config init` makes up for you", len(s), leastToken)
	case len(s) > 1024:
		return fmt.Errorf("has %d characters; right are at most 1024", len(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("has characters that a header cannot carry; right are letters, digits and signs of ASCII, without spaces")
	}
	return nil
}
