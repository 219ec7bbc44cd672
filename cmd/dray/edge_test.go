package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdWebsite serves a directory over HTTP, sets $NAME to its URL, and counts the bytes of its answers, for carried.
func cmdWebsite(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "website NAME DIR")
	var sent atomic.Int64
	files := http.FileServer(http.Dir(ts.MkAbs(args[1])))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files.ServeHTTP(&countedResponse{w, &sent}, r)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
	ts.Value("relayed").(map[string]*atomic.Int64)[args[0]] = &sent
}

// countedResponse counts what is written.
type countedResponse struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *countedResponse) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// cmdFetch gets a URL into a file, and compares the status and X-Cache.
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3 || len(args) == 4, "fetch URL FILE STATUS [X-CACHE]")
	resp, err := http.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o644))
	if strconv.Itoa(resp.StatusCode) != args[2] {
		ts.Fatalf("%s: %s, want %s: %.200q", args[0], resp.Status, args[2], b)
	}
	if len(args) == 4 && resp.Header.Get("X-Cache") != args[3] {
		ts.Fatalf("%s: X-Cache is %q, want %q", args[0], resp.Header.Get("X-Cache"), args[3])
	}
}
