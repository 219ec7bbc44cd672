package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/exchange"
	"dray/node"
	"dray/transport"
)

// TestWaitingInWords: whom it waits for, why, since when, and what happens next.
func TestWaitingInWords(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(s float64) time.Time { return now.Add(time.Duration(s * float64(time.Second))) }
	path := transport.Info{Transport: "tcp", Remote: "/ip4/10.0.0.2/tcp/4001"}
	asked := node.Wait{Reason: exchange.ReasonAsked, Peer: "near", Since: at(-1), Blocks: 1, Bytes: 1 << 20}
	peer := dray.PeerID("far").String()
	for _, row := range []struct {
		name  string
		waits []node.Wait
		want  string
	}{
		{
			"silent, and another peer is there",
			[]node.Wait{{Reason: exchange.ReasonSilent, Peer: "far", Path: path, Since: at(-4), Until: at(2)}, asked},
			"waiting 4.0 s for " + shortID(peer) + " (direct over tcp to 10.0.0.2): no bytes since 4.0 s; asks another peer in 2.0 s",
		},
		{
			"alone and slow",
			[]node.Wait{{Reason: exchange.ReasonSlow, Peer: "far", Path: path, Since: at(-9), Until: at(3), Rate: 1000}},
			"no whole block since 9.0 s; asks it again in 3.0 s",
		},
		{
			"unreachable",
			[]node.Wait{{Reason: exchange.ReasonDialling, Peer: "far", Since: at(-9), Err: errors.New("refused")}},
			"waiting 4.0 s for " + shortID(peer) + ": cannot be reached: refused; keeps dialling",
		},
		{
			"two lack it",
			[]node.Wait{
				{Reason: exchange.ReasonLacks, Peer: "far", Since: at(-4), Until: at(1)},
				{Reason: exchange.ReasonLacks, Peer: "near", Since: at(-4), Until: at(1)},
			},
			"says that it does not have it, as do 1 others; asks it again in 1.0 s",
		},
		{"writing", []node.Wait{{Reason: exchange.ReasonWriting, Since: at(-3), Bytes: 12e6}}, "disk writes 12 MB, none done since 3.0 s"},
		{"nobody", []node.Wait{{Reason: exchange.ReasonNobody}}, "nobody is connected; name a peer with --from"},
		{"finishing", []node.Wait{{Reason: exchange.ReasonFinishing, Since: at(-4)}}, "waiting 4.0 s: syncing"},
		{"no word of the node", nil, "waiting 4.0 s: this host is at work on its disk"},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := inWords(row.waits, now, 4*time.Second)
			if !strings.Contains(n.Text, row.want) {
				t.Errorf("%q, want %q in it", n.Text, row.want)
			}
			if row.waits != nil && n.Reason != row.waits[0].Reason.String() {
				t.Errorf("the reason is %q", n.Reason)
			}
		})
	}
	for r := exchange.ReasonPaused; r <= exchange.ReasonFinishing; r++ {
		if w := (node.Wait{Reason: r}); strings.HasPrefix(r.String(), "state") || why(&w, nil, 0) == r.String() {
			t.Errorf("reason %d has no words: %q", r, why(&w, nil, 0))
		}
	}
}

// TestVigil: nothing is told while something arrives or nothing is missing; after two seconds it is told why, until
// something arrives.
func TestVigil(t *testing.T) {
	v := newVigil(nil)
	start := v.moved
	quiet := func(after time.Duration) {
		t.Helper()
		if n, told := v.look(start.Add(after)); told {
			t.Fatalf("after %v it is told that %q", after, n.Text)
		}
	}
	told := func(after time.Duration, text string, over bool) {
		t.Helper()
		n, ok := v.look(start.Add(after))
		if !ok || n.Over != over || !strings.Contains(n.Text, text) {
			t.Fatalf("after %v: told %v, over %v, %q", after, ok, n.Over, n.Text)
		}
	}
	beat := func(at time.Duration, arrived int64, waits ...node.Wait) {
		v.beat(start.Add(at), node.Pulse{Arrived: arrived, Waits: waits})
	}
	lacks := node.Wait{Reason: exchange.ReasonLacks, Peer: "far"}
	quiet(time.Second)
	beat(1500*time.Millisecond, 0, lacks)
	quiet(1900 * time.Millisecond)
	told(2100*time.Millisecond, "does not have it", false)
	told(4*time.Second, "does not have it", false)
	beat(4100*time.Millisecond, 10, lacks)
	told(4200*time.Millisecond, "", true)
	quiet(4300 * time.Millisecond)
	beat(7*time.Second, 10)
	quiet(8 * time.Second) // nothing is missing: whoever reads is slow
	told(10*time.Second, "at work on its disk", false)
}

// TestWaitLine: on a terminal each line replaces the last and is taken away in the end; elsewhere there is one in five
// seconds; nothing with --quiet.
func TestWaitLine(t *testing.T) {
	say := func(e *env) string {
		var out bytes.Buffer
		e.stderr, e.width = &out, 80
		l := waitLine{e: e}
		l.show(waitNote{Text: "one"})
		l.show(waitNote{Text: "two"})
		l.show(waitNote{Over: true})
		l.clear()
		return out.String()
	}
	for _, row := range []struct {
		name string
		env  env
		want string
	}{
		{"terminal", env{terminal: true}, "\r\x1b[Kone\r\x1b[Ktwo\r\x1b[K"},
		{"elsewhere", env{}, "one\n"},
		{"programs", env{json: true, terminal: true}, `{"event":"","reason":"","seconds":0,"text":"one"}` + "\n"},
		{"quiet", env{quiet: true, terminal: true}, ""},
	} {
		if got := say(&row.env); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
