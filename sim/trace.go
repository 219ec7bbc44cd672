package sim

import (
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/bits"
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

	counts uint64 // of a thin trace
}

// value returns the hash of everything so far.
func (t *trace) value() uint64 { return t.sum.Sum64() ^ t.counts }

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
		for _, x := range [...]int{
			int(now), h.number, len(r.Sends), len(r.Blocks), len(r.Loads), len(r.Stores), len(r.Delivers), len(r.Sessions), int(r.Wake),
		} {
			t.counts = bits.RotateLeft64(t.counts^uint64(x), 29) * 0x9e3779b97f4a7c15
		}
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
