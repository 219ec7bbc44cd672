package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// httpParties are Go's HTTP server and curl: nothing is verified and nothing encrypted.
var httpParties = []party{
	{
		name: "http", address: plainAddress,
		serve: func(s *suite, _ row, set *dataset, _ string) (command, error) {
			return s.role("http-serve", set.path), nil
		},
	},
	{
		name: "curl", wire: "HTTP in clear, unverified", missing: needs("curl"),
		get: func(_ *suite, g getting) command { return curl(g.addr, g.out) },
	},
}

func curl(addr, out string) command {
	return command{path: "curl", args: []string{
		"--silent", "--show-error", "--fail", "--noproxy", "*", "--write-out", `{"bytes":%{size_download}}\n`,
		"--output", out, "http://" + addr + "/file",
	}}
}

// runHTTPServe serves one file with Go's HTTP server until it is told to stop, then says how much it sent.
func runHTTPServe(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("http-serve", flag.ContinueOnError)
	if err := fs.Parse(args); err != nil {
		return err
	}
	path := fs.Arg(0)
	if _, err := os.Stat(path); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var sent atomic.Int64
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }),
	}
	if err := printJSON(listening{Addr: ln.Addr().String()}); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		_ = srv.Close() // which Serve reports
	})
	err = srv.Serve(countingListener{ln, &sent})
	wg.Wait()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return printJSON(sums{Sent: sent.Load()})
}

// countingListener adds up what all connections send.
type countingListener struct {
	net.Listener
	sent *atomic.Int64
}

// Accept returns the next connection.
func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c.(*net.TCPConn), l.sent}, nil
}

// countingConn keeps the connection's ReadFrom, with which the server has the kernel send a file.
type countingConn struct {
	*net.TCPConn
	sent *atomic.Int64
}

// Write sends p.
func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// ReadFrom sends what r holds.
func (c countingConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	c.sent.Add(n)
	return n, err
}
