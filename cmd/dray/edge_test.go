package main

import (
	"net/http"
	"net/http/httptest"
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
