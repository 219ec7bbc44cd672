package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"dray/node"
	"dray/settings"
)

// A request's way, from the socket to a front:
//
//  1. conns: a connection is counted; when there are too many, the one that has waited longest for a request is closed.
//  2. net/http: the header is read, within a time and a size; TLS and HTTP/2, if there is a certificate.
//  3. httpServer.ServeHTTP: the connection counts as busy while it is answered; the body is bounded.
//  4. guard: Host, Origin, and who asks.
//  5. router: whose path it is.

// stallTime is how long there may be between two pieces of a request's body. Tests make it short.
var stallTime = 30 * time.Second

const (
	maxHeader = 64 << 10
	maxBody   = 16 << 20    // of a request
	lastGrace = time.Second // for handlers whose client was cut off
)

// httpServer serves the fronts.
type httpServer struct {
	server   *http.Server
	listener net.Listener
	addr     string
	secure   bool
	conns    *conns
	handler  http.Handler // the guard and what is behind it
	drain    time.Duration
	closes   []func() error
	broken   chan struct{} // closed when it no longer accepts connections
	closing  atomic.Bool
	cancel   context.CancelCauseFunc
	wg       sync.WaitGroup // accepting
	running  sync.WaitGroup // handlers
}

// serveHTTP opens the fronts and listens, unless the settings say that there is no HTTP.
func serveHTTP(ctx context.Context, h *house, s settings.Settings) (_ *httpServer, err error) {
	w := &httpServer{broken: make(chan struct{}), drain: time.Duration(s.HTTP.Drain)}
	if s.HTTP.Listen == settings.HTTPOff {
		return w, nil
	}
	defer func() {
		if err != nil {
			_ = w.close() // the first error says more
		}
	}()
	g, config, err := openGuard(h.home, &s.HTTP)
	if err != nil {
		return nil, err
	}
	l, err := listenHTTP(ctx, s.HTTP.Listen, g)
	if err != nil {
		return nil, err
	}
	var routes []route
	for _, f := range fronts {
		o, err := f.open(ctx, h, s)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		for _, r := range o.routes {
			if h.meter != nil {
				r.handler = h.meter.Front(f.name, r.handler)
			}
			routes = append(routes, r)
		}
		if o.close != nil {
			w.closes = append(w.closes, o.close)
		}
		if o.probe != nil {
			h.node.Watch(f.name, o.worst, o.probe)
		}
	}
	g.next = router(routes)
	w.handler, w.secure = g, config != nil
	w.listener, w.addr = l, l.Addr().String()
	w.conns = newConns(s.HTTP.Connections, s.HTTP.ConnectionsPerAddress)
	base, cancel := context.WithCancelCause(context.Background())
	w.cancel = cancel
	w.server = &http.Server{
		Handler: w, MaxHeaderBytes: maxHeader, TLSConfig: config,
		ReadHeaderTimeout: time.Duration(s.HTTP.HeaderTimeout), IdleTimeout: time.Duration(s.HTTP.IdleTimeout),
		ErrorLog:    slog.NewLogLogger(h.env.log().Handler(), slog.LevelDebug), // what strangers send is no event
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, connOf(c))
		},
	}
	w.wg.Go(func() {
		defer close(w.broken)
		counted := &countedListener{l, w.conns}
		if config != nil {
			err = w.server.ServeTLS(counted, "", "")
		} else {
			err = w.server.Serve(counted)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			h.env.log().Error("HTTP is not served any more", "err", err)
		}
	})
	h.node.Watch("http", node.Unknown, w.probe)
	h.env.log().Info("HTTP is served", "at", w.url())
	return w, nil
}

// probe tells whether connections are still accepted.
func (w *httpServer) probe(context.Context) error {
	select {
	case <-w.broken:
		if w.closing.Load() {
			return nil
		}
		return errors.New("connections are not accepted any more; restart the daemon")
	default:
		return nil
	}
}

// url is where clients find the server.
func (w *httpServer) url() string {
	if w.secure {
		return "https://" + w.addr
	}
	return "http://" + w.addr
}

// ServeHTTP answers one request.
func (w *httpServer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.running.Add(1)
	defer w.running.Done()
	if c, ok := r.Context().Value(connKey{}).(*webConn); ok && c != nil {
		w.conns.begin(c)
		defer w.conns.end(c)
	}
	if r.ContentLength != 0 {
		body := &steadyBody{body: http.MaxBytesReader(rw, r.Body, maxBody), rc: http.NewResponseController(rw)}
		r.Body = body
		defer body.leave()
	}
	w.handler.ServeHTTP(rw, r)
}

// steadyBody is a request's body of which the next piece must come within a time.
type steadyBody struct {
	body interface {
		Read([]byte) (int, error)
		Close() error
	}
	rc    *http.ResponseController
	ended bool
}

// Read reads a piece.
func (b *steadyBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(stallTime)) // a connection that cannot have one is a test's
	n, err := b.body.Read(p)
	if err == io.EOF {
		b.ended = true
		_ = b.rc.SetReadDeadline(time.Time{}) // else it would end a long answer
	}
	return n, err
}

// leave is called when the request is answered: the server reads what is left of a body, which must not take long.
func (b *steadyBody) leave() {
	if !b.ended {
		_ = b.rc.SetReadDeadline(time.Now().Add(lastGrace))
	}
}

// Close closes the body.
func (b *steadyBody) Close() error { return b.body.Close() }

// close stops listening, lets requests end for a while, and closes the fronts.
func (w *httpServer) close() error {
	var errs []error
	w.closing.Store(true)
	if w.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), w.drain)
		defer cancel()
		if w.server.Shutdown(ctx) != nil {
			w.cancel(errStopping) // whoever still reads is cut off
			errs = append(errs, w.server.Close())
		}
		w.cancel(errStopping)
		w.wg.Wait()
		w.await()
	}
	for _, f := range w.closes {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// await waits for handlers, but not for ever: one that hangs must not keep the daemon from ending.
func (w *httpServer) await() {
	ended := make(chan struct{})
	var waiter sync.WaitGroup
	waiter.Go(func() {
		w.running.Wait()
		close(ended)
	})
	t := time.NewTimer(lastGrace)
	defer t.Stop()
	select {
	case <-ended:
		waiter.Wait()
	case <-t.C: // the process ends soon, and the handler with it
	}
}

// listenHTTP returns what to accept connections from: the socket that systemd passes, or an address.
func listenHTTP(ctx context.Context, address string, g *guard) (net.Listener, error) {
	passed, err := passedListener()
	if err != nil {
		return nil, err
	}
	if passed != nil {
		if err := g.mayListen(passed.Addr()); err != nil {
			passed.Close()
			return nil, err
		}
		return passed, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("http.listen: %s is taken by another program, perhaps by another daemon; "+
			"`dray serve --http 127.0.0.1:0` takes a port that is free, and `dray serve --http off` does without HTTP", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("http.listen: %s may not be listened on by this user; take a port above 1023", address)
	case err != nil:
		return nil, fmt.Errorf("http.listen: %w; right is an address of this machine, such as 127.0.0.1:4871, or off", err)
	}
	if err := g.mayListen(l.Addr()); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// inHome returns where a path of the settings leads.
func inHome(home, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(home, path)
}

// readToken returns what clients must say; empty without a token.
func readToken(home string, s *settings.HTTP) (string, error) {
	if s.TokenFile == "" {
		return s.Token, nil
	}
	at := inHome(home, s.TokenFile)
	text, err := os.ReadFile(at)
	if err != nil {
		return "", fmt.Errorf("http.token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if err := settings.BadToken(token); err != nil {
		return "", fmt.Errorf("http.token_file: the token in %s %w", at, err)
	}
	return token, nil
}

// openGuard reads what says who may come in, and the certificates, if there are any.
func openGuard(home string, s *settings.HTTP) (*guard, *tls.Config, error) {
	at := func(path string) string { return inHome(home, path) }
	token, err := readToken(home, s)
	if err != nil {
		return nil, nil, err
	}
	g := newGuard(token, s.Hosts)
	if s.Cert == "" {
		return g, nil, nil
	}
	pair, err := loadPair(at(s.Cert), at(s.Key))
	if err != nil {
		return nil, nil, fmt.Errorf("http.cert and http.key: %w", err)
	}
	c := &tls.Config{GetCertificate: pair.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	g.secure = true
	if s.ClientCA != "" {
		text, err := os.ReadFile(at(s.ClientCA))
		if err != nil {
			return nil, nil, fmt.Errorf("http.client_ca: %w", err)
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(text) {
			return nil, nil, fmt.Errorf("http.client_ca: there is no certificate in %s; right is a file in PEM", at(s.ClientCA))
		}
		g.certs = true
		c.ClientAuth = tls.RequireAndVerifyClientCert
		if g.needsToken() {
			c.ClientAuth = tls.VerifyClientCertIfGiven // one of both is enough
		}
	}
	return g, c, nil
}
