package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dray/settings"
)

// A front is a face of the daemon for other people's clients over HTTP: the gateway, the Hub, the page and so on. Each has a
// file of its own, which says how it is opened and which paths are its.

// front is one of them.
type front struct {
	name string
	// open makes it ready, or returns no routes when the settings have it off.
	open func(ctx context.Context, h *house, s settings.Settings) (opened, error)
}

// opened is a front that is ready.
type opened struct {
	routes []route
	// close ends what it runs, after its last request. It may be nil.
	close func() error
}

// route gives the paths that begin with prefix to a handler. A prefix that ends in a slash means what is below it, and one
// without means that path alone; so does "/". The longest prefix counts; the empty one is for all that nobody else has.
type route struct {
	prefix  string
	handler http.Handler
}

// fronts lists them all.
var fronts = []front{}

// httpServer serves the fronts.
type httpServer struct {
	server *http.Server
	addr   string
	closes []func() error
	wg     sync.WaitGroup
}

const configName = "config.toml"

// readSettings returns what the home's file says, and what overrides it.
func (e *env) readSettings(home string) (settings.Settings, error) {
	s := settings.Default()
	path := filepath.Join(home, configName)
	text, err := os.ReadFile(path)
	if err == nil {
		s, err = settings.Parse(text, s)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	if v := os.Getenv("DRAY_HTTP_LISTEN"); v != "" {
		s.HTTP.Listen = v
	}
	if e.http != "" {
		s.HTTP.Listen = e.http
	}
	return s, s.Check()
}

// serveHTTP opens the fronts and listens, unless the settings say that there is no HTTP.
func serveHTTP(ctx context.Context, h *house, s settings.Settings) (_ *httpServer, err error) {
	w := &httpServer{}
	if s.HTTP.Listen == "off" {
		return w, nil
	}
	defer func() {
		if err != nil {
			_ = w.close(ctx) // the first error says more
		}
	}()
	var routes []route
	for _, f := range fronts {
		o, err := f.open(ctx, h, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		routes = append(routes, o.routes...)
		if o.close != nil {
			w.closes = append(w.closes, o.close)
		}
	}
	l, err := net.Listen("tcp", s.HTTP.Listen)
	if err != nil {
		return nil, err
	}
	w.addr = l.Addr().String()
	w.server = &http.Server{
		Handler: router(routes), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10, IdleTimeout: time.Minute,
		ErrorLog: log.New(h.env.stderr, "http: ", 0),
	}
	w.wg.Go(func() { _ = w.server.Serve(l) }) // ends with close
	return w, nil
}

// router returns a handler that finds the route of a path.
func router(routes []route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var best *route
		for i := range routes {
			x := &routes[i]
			fits := x.prefix == "" || r.URL.Path == x.prefix ||
				len(x.prefix) > 1 && strings.HasSuffix(x.prefix, "/") && strings.HasPrefix(r.URL.Path, x.prefix)
			if fits && (best == nil || len(x.prefix) > len(best.prefix)) {
				best = x
			}
		}
		if best == nil {
			http.NotFound(w, r)
			return
		}
		best.handler.ServeHTTP(w, r)
	})
}

// close stops listening, lets requests end while ctx allows, and closes the fronts.
func (w *httpServer) close(ctx context.Context) error {
	var errs []error
	if w.server != nil {
		if err := w.server.Shutdown(ctx); err != nil {
			errs = append(errs, w.server.Close())
		}
		w.wg.Wait()
	}
	for _, f := range w.closes {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
