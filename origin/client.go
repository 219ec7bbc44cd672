package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"dray"
)

// What a client refuses. The errors of http.Client wrap them.
var (
	// ErrPrivate means that a name or a redirect leads to a private address, which is not allowed here.
	ErrPrivate = fmt.Errorf("%w: private address", dray.ErrRefused)
	// ErrRedirect means that a redirect is not followed.
	ErrRedirect = fmt.Errorf("%w: redirect", dray.ErrRefused)
	// ErrTooLarge means that an answer is larger than allowed. What was read of it so far is no whole answer.
	ErrTooLarge = errors.New("answer too large")
	// ErrStalled means that nothing came for too long.
	ErrStalled = fmt.Errorf("%w: no bytes came", dray.ErrTimeout)
)

// Config says which server is asked, and what is allowed on the way. Its zero value works: it allows public addresses
// and has no credentials.
type Config struct {
	// URL is what an operator wrote down: http or https. An address that it spells out, "localhost" included, is
	// allowed at its port even if it is private. If nil, no address is special and Credentials are never used.
	URL *url.URL
	// AllowPrivate allows private addresses everywhere, after redirects too. If false, they are refused.
	AllowPrivate bool
	// Credentials adds to a request what proves who asks, such as an Authorization header. It is called for requests to
	// URL's origin only. It may be called concurrently; the request's header is its own. If nil, nothing is added.
	Credentials func(*http.Request) error
	// Secrets are the names of further request headers that must not leave an origin by a redirect. Authorization,
	// Cookie, Proxy-Authorization, Referer, and all that begin with X-Amz- or contain "token", "secret", "key" or "auth"
	// are meant anyway.
	Secrets []string
	// Timeout bounds each step until the answer's headers are here: connecting, the TLS handshake, and waiting. If zero,
	// 30 s.
	Timeout time.Duration
	// Stall is how long a body may bring no byte. If zero, 30 s.
	Stall time.Duration
	// MaxRedirects is how many redirects are followed. If zero, 5; if negative, none: they are an error.
	MaxRedirects int
	// MaxHeader bounds the headers of an answer, in bytes. If zero, 64 KiB.
	MaxHeader int64
	// MaxBody bounds the body of an answer, in bytes. If zero, it is not bounded here: the caller reads as much as it
	// needs.
	MaxBody int64
	// Connections is how many connections there may be to one host; more requests wait. If zero, 32.
	Connections int
	// UserAgent names the program to servers. If empty, "dray".
	UserAgent string
	// TLS replaces Go's defaults, for authorities of one's own. If nil, there are none.
	TLS *tls.Config
}

func (c *Config) setDefaults() {
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Stall == 0 {
		c.Stall = 30 * time.Second
	}
	if c.MaxRedirects == 0 {
		c.MaxRedirects = 5
	}
	c.MaxRedirects = max(c.MaxRedirects, 0)
	if c.MaxHeader == 0 {
		c.MaxHeader = 64 << 10
	}
	if c.Connections == 0 {
		c.Connections = 32
	}
	if c.UserAgent == "" {
		c.UserAgent = "dray"
	}
}

// NewClient returns a client that is guarded as the package says. Bodies come as they are sent, without
// decompression. The caller ends with its CloseIdleConnections. A caller that handles redirects itself copies the
// client and sets CheckRedirect to something that returns http.ErrUseLastResponse; addresses and credentials are
// guarded all the same.
func NewClient(cfg Config) *http.Client { return newClient(cfg, nil) }

// newClient is NewClient with a resolver of names; nil is the system's.
func newClient(cfg Config, names *net.Resolver) *http.Client {
	cfg.setDefaults()
	g := &guard{cfg: cfg}
	g.named = namedBy(cfg.URL)
	dial := &net.Dialer{Timeout: cfg.Timeout, KeepAlive: 30 * time.Second, Resolver: names, ControlContext: g.control}
	g.next = &http.Transport{
		DialContext: dial.DialContext, TLSClientConfig: cfg.TLS,
		TLSHandshakeTimeout: cfg.Timeout, ResponseHeaderTimeout: cfg.Timeout,
		MaxResponseHeaderBytes: cfg.MaxHeader, MaxConnsPerHost: cfg.Connections,
		DisableCompression: true,
		// What a server sends beyond a body may be taken for the answer to the next request on its connection: net/http
		// looks for it only after the connection can be used again. So there is no next request.
		DisableKeepAlives: true,
		ReadBufferSize:    64 << 10,
	}
	return &http.Client{Transport: g, CheckRedirect: g.checkRedirect}
}

// Same reports whether two URLs have the same origin: scheme, host and port.
func Same(a, b *url.URL) bool {
	return a != nil && b != nil && a.Scheme == b.Scheme &&
		strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// guard is the client's transport.
type guard struct {
	cfg   Config
	named func(netip.AddrPort) bool
	next  *http.Transport
}

// namedBy returns which addresses a URL spells out.
func namedBy(u *url.URL) func(netip.AddrPort) bool {
	if u == nil {
		return func(netip.AddrPort) bool { return false }
	}
	host, at := strings.ToLower(u.Hostname()), port(u)
	literal, err := netip.ParseAddr(host)
	return func(a netip.AddrPort) bool {
		if fmt.Sprint(a.Port()) != at {
			return false
		}
		if err == nil {
			return literal.Unmap() == a.Addr().Unmap()
		}
		return host == "localhost" && a.Addr().Unmap().IsLoopback()
	}
}

// control is called when a socket is about to connect, with the address itself.
func (g *guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	if g.cfg.AllowPrivate {
		return nil
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrPrivate, address)
	}
	if Public(a.Addr()) || g.named(a) {
		return nil
	}
	return fmt.Errorf("%w %v; set allow_private if servers in private networks are meant", ErrPrivate, a.Addr())
}

// leftKey marks the context of a request whose chain of redirects has left the origin it began at.
type leftKey struct{}

func (g *guard) checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) > g.cfg.MaxRedirects {
		return fmt.Errorf("%w: more than %d in a row", ErrRedirect, g.cfg.MaxRedirects)
	}
	if err := checkURL(r.URL); err != nil {
		return fmt.Errorf("%w to %s: %w", ErrRedirect, r.URL.Redacted(), err)
	}
	last := via[len(via)-1]
	if last.URL.Scheme == "https" && r.URL.Scheme != "https" {
		return fmt.Errorf("%w from TLS to plain text: %s", ErrRedirect, r.URL.Redacted())
	}
	left := last.Context().Value(leftKey{}) != nil || !Same(r.URL, via[0].URL)
	if !left {
		return nil
	}
	*r = *r.WithContext(context.WithValue(r.Context(), leftKey{}, true))
	for name := range r.Header {
		if g.secret(name) {
			r.Header.Del(name)
		}
	}
	return nil
}

func checkURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("scheme %q is not HTTP", u.Scheme)
	case u.Hostname() == "":
		return errors.New("it names no host")
	case u.User != nil:
		return errors.New("it contains a user name")
	}
	return nil
}

// secret reports whether a request header may say who asks.
func (g *guard) secret(name string) bool {
	for _, s := range g.cfg.Secrets {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	name = strings.ToLower(name)
	switch name {
	case "cookie", "referer":
		return true
	}
	if strings.HasPrefix(name, "x-amz-") {
		return true
	}
	for _, part := range []string{"token", "secret", "key", "auth"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := checkURL(r.URL); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", dray.ErrRefused, r.URL.Redacted(), err)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	out := r.Clone(ctx)
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", g.cfg.UserAgent)
	}
	if g.cfg.Credentials != nil && Same(r.URL, g.cfg.URL) && r.Context().Value(leftKey{}) == nil {
		if err := g.cfg.Credentials(out); err != nil {
			cancel(nil)
			return nil, fmt.Errorf("credentials for %s: %w", r.URL.Host, err)
		}
	}
	resp, err := g.next.RoundTrip(out)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if g.cfg.MaxBody > 0 && resp.ContentLength > g.cfg.MaxBody {
		_ = resp.Body.Close()
		cancel(nil)
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrTooLarge, resp.ContentLength, g.cfg.MaxBody)
	}
	resp.Body = newBody(ctx, cancel, resp.Body, g.cfg)
	resp.Request = r
	return resp, nil
}

// CloseIdleConnections is found by http.Client.
func (g *guard) CloseIdleConnections() { g.next.CloseIdleConnections() }
