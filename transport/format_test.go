package transport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dray/transport"
)

// lineFormat writes events as lines. Labels that begin with "no" it cannot write.
type lineFormat struct{}

func (lineFormat) AppendEvent(dst []byte, _ transport.Stream, e *transport.Event, again bool) []byte {
	if strings.HasPrefix(e.Label, "no") {
		return dst
	}
	if again {
		dst = append(dst, "again "...)
	}
	return fmt.Appendf(dst, "%s\n", e.Data)
}

// page is a state lane of lines: what is on the page, of which each message says what was not said.
type page struct {
	mu            sync.Mutex
	lines         []string
	said, written int
	fail          error
}

func (p *page) Next(dst []byte, _ transport.Stream, full bool) ([]byte, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.fail; err != nil {
		p.fail = nil
		return dst, false, err
	}
	if full {
		p.said = 0
		dst = append(dst, "full "...)
	}
	if p.said == len(p.lines) {
		return dst, full, nil
	}
	dst = fmt.Appendf(dst, "%s\n", strings.Join(p.lines[p.said:], ","))
	p.said = len(p.lines)
	return dst, true, nil
}

func (p *page) Written() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written = p.said
}

func (p *page) add(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, s)
}

// brittle is a stream whose writes fail after so many.
type brittle struct {
	transport.Stream
	left int
}

var errBrittle = errors.New("it broke")

func (b *brittle) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		return 0, errBrittle
	}
	return b.Stream.Write(p)
}

// TestForeignFormat: with a Format of one's own, the lanes take turns; the event under way when the stream breaks is written
// again and says so, and the page is said in full; an event that the stream cannot carry is dropped; an error of the State
// breaks the stream and no more.
func TestForeignFormat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var heard []string
		r := newRoute(func(_ *route, s transport.Stream) {
			all, _ := io.ReadAll(s)
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, strings.Split(strings.TrimSuffix(string(all), "\n"), "\n")...)
			_ = s.Reset()
		})
		writes := []int{3, 2, 100}
		r.tap = func(s transport.Stream) transport.Stream {
			left := writes[0]
			writes = writes[1:]
			return &closing{&brittle{s, left}}
		}
		state := &page{lines: []string{"a"}}
		var gaveUp error
		d := transport.NewDispatcher(transport.DispatcherConfig{
			Open: r.open, State: state, Format: lineFormat{}, Lazy: true,
			Retry: func(attempt int, err error) (time.Duration, bool) {
				gaveUp = err
				return time.Second, attempt < 3
			},
		})
		time.Sleep(time.Minute)
		if len(r.opens) != 0 {
			t.Error("opened before there was something to say")
		}
		post := func(label, text string) {
			t.Helper()
			if err := d.Post(label, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		post("x", "one") // full a, one
		synctest.Wait()
		post("no", "never")
		state.add("b")
		d.Wake() // b, and with that the stream's three writes are used up
		synctest.Wait()
		post("x", "two") // breaks: again two, full a,b
		synctest.Wait()
		time.Sleep(5 * time.Second)
		state.mu.Lock()
		state.fail = errBrittle
		state.mu.Unlock()
		state.add("c")
		d.Wake()
		synctest.Wait()
		time.Sleep(5 * time.Second)
		if err := d.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.Close()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []string{"full a", "one", "b", "again two", "full a,b", "full a,b,c"}
		if !slices.Equal(heard, want) {
			t.Errorf("heard %q, want %q", heard, want)
		}
		if state.written != 3 || !errors.Is(gaveUp, errBrittle) {
			t.Errorf("%d lines are known to be written; the last failure was %v", state.written, gaveUp)
		}
		r.close(t)
	})
}

// closing ends its stream in an orderly way even when it is reset, so that the other side reads all that was written.
type closing struct{ *brittle }

func (c *closing) Reset() error { return c.CloseWrite() }

// TestRetryMaySayNo: the Dispatcher ends its attempts, and Close returns.
func TestRetryMaySayNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		d := transport.NewDispatcher(transport.DispatcherConfig{
			Open:  func(context.Context) (transport.Stream, error) { n++; return nil, errBrittle },
			Retry: func(attempt int, _ error) (time.Duration, bool) { return time.Second, attempt < 2 },
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n != 3 {
			t.Errorf("%d attempts", n)
		}
		d.Close()
	})
}
