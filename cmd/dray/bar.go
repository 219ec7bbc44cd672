package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	plainEvery = 3 * time.Second // between lines of progress when there is no terminal
	drawEvery  = 120 * time.Millisecond
	stalledFor = 2 * time.Second // without progress, the reason is shown
)

// meter is what a bar shows.
type meter struct {
	done, total int64
	known       bool // the total is final
	rate        float64
	// notes are shown below the bar, one a line: who gives, who is waited for.
	notes []string
	// stalled says that nothing comes, of which others tell.
	stalled bool
}

// text is the meter in words.
func (m *meter) text() string {
	var b strings.Builder
	if m.known && m.total > 0 {
		fmt.Fprintf(&b, "%3d %%  %s of %s", 100*m.done/m.total, size(m.done), size(m.total))
	} else {
		b.WriteString(size(m.done))
	}
	if m.rate > 0 && m.done < m.total {
		fmt.Fprintf(&b, "  %s/s", size(int64(m.rate)))
		if m.known {
			eta := time.Duration(float64(m.total-m.done) / m.rate * float64(time.Second))
			fmt.Fprintf(&b, "  %s left", seconds(eta))
		}
	}
	return b.String()
}

// display is where progress is drawn: bars on a terminal, now and then a line elsewhere, nothing when nobody wants it. It
// is used by one goroutine per bar.
type display struct {
	env   *env
	mpb   *mpb.Progress // nil without a terminal
	since time.Time
}

func newDisplay(e *env) *display {
	d := &display{env: e, since: time.Now()}
	if e.terminal && !e.quiet && !e.json {
		d.mpb = mpb.New(mpb.WithOutput(e.stderr), mpb.WithWidth(min(e.width, 100)), mpb.WithRefreshRate(drawEvery))
	}
	return d
}

// close returns when what is to be drawn is drawn. Every bar must be closed.
func (d *display) close() {
	if d.mpb != nil {
		d.mpb.Wait()
	}
}

// bar is one line of progress.
type bar struct {
	d     *display
	own   bool // the display is the bar's alone
	title string
	shown time.Time
	once  sync.Once

	mu   sync.Mutex // the library draws on a goroutine of its own
	m    meter
	why  string // nothing comes, or ""
	line *mpb.Bar
}

// newBar returns a bar on a display of its own.
func newBar(e *env, title string) *bar {
	b := newDisplay(e).bar(title)
	b.own = true
	return b
}

func (d *display) bar(title string) *bar { return &bar{d: d, title: title, shown: time.Now()} }

// set shows how far it is.
func (b *bar) set(m meter) {
	e := b.d.env
	if e.quiet || e.json {
		return
	}
	b.mu.Lock()
	b.m = m
	b.mu.Unlock()
	if b.d.mpb == nil {
		if now := time.Now(); now.Sub(b.shown) >= plainEvery && !m.stalled {
			b.shown = now
			e.tell("%s", strings.Join(append([]string{b.title + ": " + m.text()}, m.notes...), "; "))
		}
		return
	}
	if b.line == nil {
		b.line = b.start()
	}
	b.line.SetTotal(max(m.total, m.done+1), false) // it ends by close, not by being full
	b.line.SetCurrent(m.done)
}

// wait shows below the bar why nothing comes; "" takes that away.
func (b *bar) wait(why string) {
	b.mu.Lock()
	b.why = why
	b.mu.Unlock()
	if b.line == nil {
		b.line = b.start()
	}
}

func (b *bar) start() *mpb.Bar {
	text := decor.Any(func(decor.Statistics) string {
		b.mu.Lock()
		defer b.mu.Unlock()
		return " " + b.m.text()
	})
	notes := mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		notes := b.m.notes
		if b.why != "" {
			notes = append(notes[:len(notes):len(notes)], b.why)
		}
		for _, n := range notes {
			if _, err := fmt.Fprintf(w, "  %s\n", cut(n, b.d.env.width-3)); err != nil {
				return err
			}
		}
		return nil
	})
	return b.d.mpb.New(1, mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("").Padding("░"),
		mpb.PrependDecorators(decor.Name(b.title+" ")), mpb.AppendDecorators(text), mpb.BarExtender(notes, false))
}

// close ends the bar where it stands. It may be called more than once.
func (b *bar) close() {
	b.once.Do(func() {
		if b.line != nil {
			b.line.Abort(false)
		}
		if b.own {
			b.d.close()
		}
	})
}

// cut shortens a line to n columns.
func cut(s string, n int) string {
	if r := []rune(s); n > 1 && len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// seconds writes a duration for people.
func seconds(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
