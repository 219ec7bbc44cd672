package main

import (
	"path/filepath"
	"testing"
	"time"
)

// TestIdle measures a daemon for a moment: that the figures are there, not that they are good, which a busy machine decides.
func TestIdle(t *testing.T) {
	program := filepath.Join(t.TempDir(), "dray")
	if err := buildDray(t.Context(), program); err != nil {
		t.Fatal(err)
	}
	f := idleFigures{Peers: 5, For: 200 * time.Millisecond}
	serve := command{path: program, args: []string{"--home", filepath.Join(t.TempDir(), "home"), "--json", "serve", "--http", "127.0.0.1:0"}}
	var err error
	if f.Ready, err = timeStarts(serve, 2); err != nil {
		t.Fatal(err)
	}
	if err := f.measure(t.Context(), serve, 0); err != nil {
		t.Fatal(err)
	}
	if f.Ready <= 0 || f.RSS <= f.Anon || f.Anon == 0 || f.File == 0 || f.Share < 0 {
		t.Errorf("%+v", f)
	}
}
