package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// fetchWithin bounds one request of a script.
const fetchWithin = time.Minute

// cmdFetch asks a server for something, and writes the answer's body to a file, its status and header to FILE.header. A body
// that breaks off is the status "cut".
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 3, "fetch STATUS|cut FILE URL [HEADER…]")
	r, err := http.NewRequest(http.MethodGet, args[2], nil)
	ts.Check(err)
	for _, h := range args[3:] {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	client := http.Client{Timeout: fetchWithin, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := client.Do(r)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	got := strconv.Itoa(resp.StatusCode)
	if err != nil {
		got = "cut"
	}
	header := new(strings.Builder)
	header.WriteString(resp.Status + "\n")
	ts.Check(resp.Header.Write(header))
	ts.Check(errors.Join(
		os.WriteFile(ts.MkAbs(args[1]), body, 0o644),
		os.WriteFile(ts.MkAbs(args[1]+".header"), []byte(header.String()), 0o644),
	))
	if got != args[0] {
		ts.Fatalf("%s: status %s, want %s: %v %.300q", args[2], got, args[0], err, body)
	}
}
