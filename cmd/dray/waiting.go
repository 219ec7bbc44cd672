package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"dray/exchange"
	"dray/node"
	"dray/transport"
)

// While a task that may need peers runs and nothing arrives, whoever asked for it is told why: the node says what it waits
// for (node.WithPulse), a vigil notices that nothing came for a while, and a waitLine prints it, on the terminal over
// itself. All commands share this; get shows the line below its bar.

const (
	waitTick  = 500 * time.Millisecond
	waitEvery = 5 * time.Second // between lines, when they are not drawn over each other
)

// waitNote is why a task does not advance.
type waitNote struct {
	Event  string `json:"event"` // "waiting"
	Reason string `json:"reason"`
	Peer   string `json:"peer,omitempty"`
	Path   string `json:"path,omitempty"`
	// Seconds is how long nothing has arrived, ReasonSeconds how long the reason holds, and NextSeconds when something else is
	// tried; 0 if nobody knows.
	Seconds       float64 `json:"seconds"`
	ReasonSeconds float64 `json:"reason_seconds,omitempty"`
	NextSeconds   float64 `json:"next_seconds,omitempty"`
	Blocks        int     `json:"blocks,omitempty"`
	Bytes         int64   `json:"bytes,omitempty"`
	// Others counts the reasons that weigh less.
	Others int `json:"others,omitempty"`
	// Text is all this for people.
	Text string `json:"text"`
	// Over says that something arrives again.
	Over bool `json:"over,omitempty"`
}

// vigil notices that a task does not advance. It is safe for concurrent use.
type vigil struct {
	send func(waitNote)

	mu      sync.Mutex
	last    node.Pulse
	at      time.Time // of the last pulse
	moved   time.Time // when something last arrived
	telling bool
}

func newVigil(send func(waitNote)) *vigil {
	now := time.Now()
	return &vigil{send: send, at: now, moved: now}
}

// pulse takes what the node says.
func (v *vigil) pulse(p node.Pulse) { v.beat(time.Now(), p) }

func (v *vigil) beat(now time.Time, p node.Pulse) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.at = now
	if p.Arrived != v.last.Arrived {
		v.moved = v.at
	}
	v.last = p
}

// run tells until done.
func (v *vigil) run(done <-chan struct{}) {
	tick := time.NewTicker(waitTick)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			if n, ok := v.look(time.Now()); ok {
				v.send(n)
			}
		}
	}
}

// look returns what is to be told now.
func (v *vigil) look(now time.Time) (waitNote, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fresh := now.Sub(v.at) < stalledFor
	if now.Sub(v.moved) < stalledFor || fresh && len(v.last.Waits) == 0 {
		if !v.telling {
			return waitNote{}, false
		}
		v.telling = false
		return waitNote{Event: "waiting", Over: true}, true
	}
	v.telling = true
	return inWords(v.last.Waits, now, now.Sub(v.moved)), true
}

// inWords says why nothing has arrived for so long.
func inWords(waits []node.Wait, now time.Time, idle time.Duration) waitNote {
	n := waitNote{Event: "waiting", Reason: "busy", Seconds: idle.Seconds()}
	if len(waits) == 0 {
		n.Text = fmt.Sprintf("waiting %s: this host is at work on its disk", seconds(idle))
		return n
	}
	w := waits[0]
	n.Reason, n.Peer, n.Path = w.Reason.String(), w.Peer.String(), pathText(&w)
	n.Blocks, n.Bytes, n.Others = w.Blocks, w.Bytes, len(waits)-1
	since := now.Sub(w.Since)
	n.ReasonSeconds = since.Seconds()
	next := w.Until.Sub(now)
	if w.Until.IsZero() || next < 0 {
		next = 0
	}
	n.NextSeconds = next.Seconds()
	whom := ""
	if w.Peer != "" {
		whom = " for " + shortID(w.Peer.String())
		if n.Path != "" {
			whom += " (" + n.Path + ")"
		}
	}
	n.Text = fmt.Sprintf("waiting %s%s: %s%s", seconds(idle), whom, why(&w, waits, since), then(&w, waits, next))
	return n
}

// why puts a reason in words.
func why(w *node.Wait, waits []node.Wait, since time.Duration) string {
	switch w.Reason {
	case exchange.ReasonPaused:
		return "the transfer is paused"
	case exchange.ReasonDiskFull:
		return "the disk is full"
	case exchange.ReasonWriting:
		return fmt.Sprintf("this host's disk writes %s, none done since %s", size(w.Bytes), seconds(since))
	case exchange.ReasonLimited:
		return "this host's own limit lets no more through now"
	case exchange.ReasonAsked:
		return fmt.Sprintf("asked for %s (%s) %s ago", plural(int64(w.Blocks), "block"), size(w.Bytes), seconds(since))
	case exchange.ReasonSilent:
		return fmt.Sprintf("no bytes since %s", seconds(since))
	case exchange.ReasonSlow:
		return fmt.Sprintf("sends %s/s, no whole block since %s", size(int64(w.Rate)), seconds(since))
	case exchange.ReasonAsking:
		return "connected, asked what it has"
	case exchange.ReasonDialling:
		if errors.Is(w.Err, transport.ErrBusy) {
			return "has no room for more connections; trying again in 2 s"
		}
		if w.Err != nil {
			return "cannot be reached: " + oneLine(w.Err)
		}
		return fmt.Sprintf("not connected since %s", seconds(since))
	case exchange.ReasonBackedOff:
		return "did not deliver, and is left alone for a while"
	case exchange.ReasonRefused:
		return "connected, but refuses: it serves nobody, or not this host"
	case exchange.ReasonLacks:
		lacking := 0
		for i := range waits {
			if waits[i].Reason == exchange.ReasonLacks {
				lacking++
			}
		}
		if lacking > 1 {
			return fmt.Sprintf("says that it does not have it, as do %d others", lacking-1)
		}
		return "says that it does not have it"
	case exchange.ReasonBanned:
		return "broke the protocol and is refused"
	case exchange.ReasonLooking:
		return "looking for somebody who has it"
	case exchange.ReasonNotFound:
		return "all who might know were asked, and nobody was found who has it"
	case exchange.ReasonNobody:
		return "nobody is connected; name a peer with --from MULTIADDR"
	case exchange.ReasonChecking:
		return "looking through what an earlier attempt left on this disk"
	case exchange.ReasonFinishing:
		return "syncing what was got to this disk"
	}
	return w.Reason.String()
}

// then says what happens next.
func then(w *node.Wait, waits []node.Wait, next time.Duration) string {
	others := 0 // peers that may deliver besides
	for i := range waits {
		switch waits[i].Reason {
		case exchange.ReasonAsked, exchange.ReasonSilent, exchange.ReasonSlow, exchange.ReasonAsking:
			if waits[i].Peer != w.Peer {
				others++
			}
		}
	}
	what := ""
	switch w.Reason {
	case exchange.ReasonAsked, exchange.ReasonSilent, exchange.ReasonSlow:
		what = "asks it again"
		if others > 0 {
			what = "asks another peer"
		}
	case exchange.ReasonBackedOff, exchange.ReasonLacks:
		what = "asks it again"
	case exchange.ReasonDialling:
		what = "dials again"
	case exchange.ReasonLooking, exchange.ReasonNotFound:
		what = "looks again"
	case exchange.ReasonBanned:
		what = "let in again"
	}
	if what == "" || errors.Is(w.Err, transport.ErrBusy) || next <= 0 && w.Reason != exchange.ReasonDialling {
		return ""
	}
	if next <= 0 {
		return "; keeps dialling"
	}
	return fmt.Sprintf("; %s in %s", what, seconds(next.Round(100*time.Millisecond)))
}

// pathText says how a peer is connected, or "".
func pathText(w *node.Wait) string {
	path := pathWords(w.Path)
	if parts := strings.Split(w.Path.Remote, "/"); path != "" && !w.Path.Relayed && len(parts) > 2 {
		path += " to " + parts[2]
	}
	return path
}

// watched runs the task and tells send, which may be nil, while it does not advance.
func (t task[Q, N, R]) watched(ctx context.Context, h *house, q Q, p pipes[N], send func(waitNote)) (R, error) {
	if !t.network || send == nil {
		return t.run(ctx, h, q, p)
	}
	v := newVigil(send)
	end := watch(v.run)
	defer end()
	return t.run(node.WithPulse(ctx, v.pulse), h, q, p)
}

// waitLine prints why a task waits.
type waitLine struct {
	e       *env
	printed time.Time // last line
	drawn   bool      // there is a line on the terminal that the next one replaces
}

func (l *waitLine) show(n waitNote) {
	e := l.e
	switch now := time.Now(); {
	case e.quiet:
	case n.Over:
		l.clear()
	case e.terminal && !e.json:
		l.drawn = true
		fmt.Fprintf(e.stderr, "\r\x1b[K%s", cut(n.Text, e.width-1))
	case now.Sub(l.printed) < waitEvery:
	case e.json: // standard output is for results
		l.printed = now
		_ = json.NewEncoder(e.stderr).Encode(n)
	default:
		l.printed = now
		e.tell("%s", n.Text)
	}
}

// clear takes the line away.
func (l *waitLine) clear() {
	if l.drawn {
		l.drawn = false
		fmt.Fprint(l.e.stderr, "\r\x1b[K")
	}
}
