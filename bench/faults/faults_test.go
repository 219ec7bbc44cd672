package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test's program be the cells and the hostile peers too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if name, ok := strings.CutPrefix(os.Args[1], "role="); ok {
			ctx, cancel := context.WithCancel(context.Background())
			err := Roles[name](ctx, os.Args[2:])
			cancel()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

// TestQuick runs a few rows with Dray and a small file. Each must end as promised.
func TestQuick(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := newBench([]string{"-quick", "-dir", t.TempDir()}, Programs{Self: self})
	if err != nil {
		t.Fatal(err)
	}
	b.log = t.Output()
	all, err := b.run(t.Context())
	if err := errors.Join(err, b.close()); err != nil {
		t.Fatal(err)
	}
	dray := programs()[0]
	for _, f := range b.faults() {
		if !f.quick || f.missing != nil && f.missing(b) != "" {
			continue
		}
		v := b.verdicts(all, f, dray)
		if v.runs != 1 {
			t.Errorf("%s ran %d times", f.name, v.runs)
		}
		if v.good != v.runs {
			t.Errorf("%s: %s", f.name, &v)
		}
	}
	var text strings.Builder
	b.writeTable(&text, all)
	if rows := strings.Count(text.String(), "| ok |"); rows == 0 {
		t.Errorf("the table says\n%s", &text)
	}
}

// echo is a server that sends what it has to whoever connects, and its address.
func echo(t *testing.T, what []byte) func(context.Context) (net.Conn, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = c.Write(what) // the proxy may have broken it
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", ln.Addr().String())
	}
}

// TestProxy sends a mebibyte through each kind of trouble.
func TestProxy(t *testing.T) {
	what := bytes.Repeat([]byte{0xa5}, 1<<20)
	for _, tc := range []struct {
		why     string
		trouble trouble
		check   func(t *testing.T, got []byte, err error, took time.Duration)
	}{
		{"none", trouble{}, func(t *testing.T, got []byte, err error, took time.Duration) {
			if err != nil || !bytes.Equal(got, what) {
				t.Errorf("%d bytes came: %v", len(got), err)
			}
			if took < 90*time.Millisecond || took > 2*time.Second {
				t.Errorf("a mebibyte at 10 MB/s took %v", took)
			}
		}},
		{"cut", trouble{cutAfter: 300 << 10}, func(t *testing.T, got []byte, _ error, _ time.Duration) {
			if n := len(got); n < 200<<10 || n > 320<<10 {
				t.Errorf("%d bytes came", n)
			}
		}},
		{"corrupt", trouble{corrupt: 0.5}, func(t *testing.T, got []byte, err error, _ time.Duration) {
			changed := 0
			for i := range got {
				if got[i] != what[i] {
					changed++
				}
			}
			if packets := len(what) / packetBytes; err != nil || changed < packets/4 || changed > packets*3/4 {
				t.Errorf("%d bytes of %d packets changed: %v", changed, packets, err)
			}
		}},
		{"slow", trouble{rate: 64 << 10}, func(t *testing.T, got []byte, err error, _ time.Duration) {
			if !errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 64<<10 {
				t.Errorf("%d bytes came: %v", len(got), err)
			}
		}},
		{"frozen", trouble{frozen: true}, func(t *testing.T, got []byte, err error, _ time.Duration) {
			if !errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 0 {
				t.Errorf("%d bytes came: %v", len(got), err)
			}
		}},
	} {
		t.Run(tc.why, func(t *testing.T) {
			l := &line{rate: 10e6}
			p, err := newProxy(l, echo(t, what))
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			p.set(tc.trouble)
			start := time.Now()
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			wait := 5 * time.Second
			if tc.trouble.frozen || tc.trouble.rate > 0 {
				wait = 500 * time.Millisecond
			}
			if err := c.SetReadDeadline(start.Add(wait)); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			tc.check(t, got, err, time.Since(start))
			if l.total() != int64(len(got)) {
				t.Errorf("the line counts %d bytes of %d", l.total(), len(got))
			}
		})
	}
}

// TestRefuse breaks a connection, refuses others and takes them again.
func TestRefuse(t *testing.T) {
	p, err := newProxy(&line{rate: 10e6}, echo(t, make([]byte, 8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 1<<10)); err != nil {
		t.Fatal(err)
	}
	p.refuse()
	if n, err := io.Copy(io.Discard, c); err == nil {
		t.Errorf("the connection ended in order after %d bytes", n)
	}
	if c, err := net.Dial("tcp", p.addr); err == nil {
		c.Close()
		t.Error("another was taken")
	}
	if err := p.accept(); err != nil {
		t.Fatal(err)
	}
	again, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := io.ReadFull(again, make([]byte, 1<<10)); err != nil {
		t.Error(err)
	}
}

// TestSilence feeds the watcher a get that moves, waits without a word, gives a reason and ends.
func TestSilence(t *testing.T) {
	w := newWatcher()
	at := time.Unix(1_000_000, 0)
	w.begin(at)
	for _, l := range []struct {
		after time.Duration
		line  string
	}{
		{time.Second, `{"event":"progress","done":1}`},
		{3 * time.Second, `{"event":"progress","done":2}`},
		{4 * time.Second, `{"event":"progress","done":2}`},
		{9 * time.Second, `{"event":"progress","done":2,"stalled":true,"waiting":["a: dialling"]}`},
		{12 * time.Second, `{"event":"progress","done":2,"stalled":true,"waiting":["a: dialling"]}`},
		{13 * time.Second, `{"event":"completed","bytes":2,"duplicate_bytes":7}`},
	} {
		w.line(at.Add(l.after), []byte(l.line))
	}
	silence, last := w.end(at.Add(14 * time.Second))
	if silence != 6*time.Second || last.DuplicateBytes != 7 {
		t.Errorf("silent for %v, %+v", silence, last)
	}
}

// TestDiffers compares files.
func TestDiffers(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	source := file("source", "0123456789")
	for _, tc := range []struct {
		text string
		want int64
	}{{"0123456789", 0}, {"01234x67y9", 2}, {"01234", 5}, {"0123456789more", 4}, {"", 10}} {
		if n, err := differs(file("got", tc.text), source); err != nil || n != tc.want {
			t.Errorf("%q: %d bytes differ, want %d: %v", tc.text, n, tc.want, err)
		}
	}
	if _, err := differs(filepath.Join(dir, "none"), source); err == nil {
		t.Error("no file is no error")
	}
}
