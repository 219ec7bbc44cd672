package sim

import (
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"time"

	"dray"
	"dray/exchange"
)

// trace is the hash of everything that every engine asked for, in order, and optionally its text.
type trace struct {
	sum  hash.Hash64
	text io.Writer
	name exchange.Namer
	thin bool
}

func newTrace(c *content, text io.Writer, thin bool) trace {
	return trace{
		sum: fnv.New64a(), text: text, thin: thin,
		name: exchange.Namer{Peer: func(p dray.PeerID) string { return string(p) }, CID: c.name},
	}
}

// ready files what one engine asked for in one turn. A thin trace holds the number of actions of each kind in place of
// their text, for worlds so large that printing would take most of the time.
func (t *trace) ready(now time.Duration, h *Host, r *exchange.Ready) {
	if t.thin && t.text == nil {
		fmt.Fprintf(t.sum, "%d %s %d %d %d %d %d %d %d", now, h.name, len(r.Sends), len(r.Blocks), len(r.Loads),
			len(r.Stores), len(r.Delivers), len(r.Sessions), r.Wake)
		return
	}
	if r.Empty() {
		return
	}
	t.note("%v %s\n%s", now, h.name, r.Format(t.name))
}

// note files something else that happened.
func (t *trace) note(format string, args ...any) {
	fmt.Fprintf(t.sum, format, args...)
	if t.text != nil {
		fmt.Fprintf(t.text, format, args...)
	}
}
