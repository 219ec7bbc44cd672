package exchange

import (
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/wire"
)

var (
	wantStateNames    = [...]string{"Pending", "Waiting", "Receiving", "Done", "Failed", "Cancelled"}
	sessionStateNames = [...]string{"Created", "Active", "Paused", "Completed", "Cancelled", "TimedOut"}
	classNames        = [...]string{"Prefetch", "Normal", "High", "Urgent", "Critical"}
)

// String returns the state's name.
func (s WantState) String() string { return nameOf(wantStateNames[:], int(s)) }

// String returns the state's name.
func (s SessionState) String() string { return nameOf(sessionStateNames[:], int(s)) }

// String returns the class's name.
func (c Class) String() string { return nameOf(classNames[:], int(c-Prefetch)) }

func nameOf(names []string, i int) string {
	if i >= 0 && i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("state %d", i)
}

// Namer gives short names to peers and CIDs when a [Ready] is printed. Either function may be nil.
type Namer struct {
	Peer func(dray.PeerID) string
	CID  func(cid.Cid) string
}

func (n Namer) peer(p dray.PeerID) string {
	if n.Peer != nil {
		return n.Peer(p)
	}
	return p.Short()
}

func (n Namer) cid(c cid.Cid) string {
	if n.CID != nil {
		return n.CID(c)
	}
	return c.String()
}

// Format prints what a Ready asks for, one line per action, for traces and golden scripts.
func (r *Ready) Format(n Namer) string {
	var b strings.Builder
	for _, s := range r.Sends {
		fmt.Fprintf(&b, "send %s:%s\n", n.peer(s.Peer), formatMessage(s.Message, n))
	}
	for _, s := range r.Blocks {
		fmt.Fprintf(&b, "block %s %s\n", n.peer(s.Peer), n.cid(s.CID))
	}
	for _, l := range r.Loads {
		verb := "load"
		if l.Stat {
			verb = "stat"
		}
		fmt.Fprintf(&b, "%s %s for %s\n", verb, n.cid(l.CID), n.peer(l.Peer))
	}
	for _, s := range r.Stores {
		fmt.Fprintf(&b, "store %s from %s\n", n.cid(s.Block.CID()), n.peer(s.Peer))
	}
	for _, d := range r.Delivers {
		fmt.Fprintf(&b, "deliver %s to session %d", n.cid(d.CID), d.Session)
		switch {
		case d.Err != nil:
			fmt.Fprintf(&b, ": %v", d.Err)
		case d.Local:
			b.WriteString(" (local)")
		}
		b.WriteByte('\n')
	}
	for _, f := range r.Finds {
		fmt.Fprintf(&b, "find %s for session %d\n", n.cid(f.CID), f.Session)
	}
	for _, p := range r.Dials {
		fmt.Fprintf(&b, "dial %s\n", n.peer(p))
	}
	for _, p := range r.Probes {
		fmt.Fprintf(&b, "probe %s\n", n.peer(p))
	}
	for _, p := range r.Hangups {
		fmt.Fprintf(&b, "hang up on %s\n", n.peer(p))
	}
	for _, d := range r.Drops {
		fmt.Fprintf(&b, "drop %s: %s\n", n.peer(d.Peer), d.Violation.What)
	}
	for _, s := range r.Sessions {
		fmt.Fprintf(&b, "session %d %v: %d blocks, %d bytes\n", s.Session, s.State, s.Stats.Blocks, s.Stats.Bytes)
	}
	for _, l := range r.Manifests {
		fmt.Fprintf(&b, "manifest of %s\n", n.cid(l.Root))
	}
	for _, l := range r.Walks {
		verb := "go on with"
		switch {
		case l.Walk.Stop:
			verb = "stop"
		case l.First:
			verb = "begin"
		}
		fmt.Fprintf(&b, "%s walk %d for %s\n", verb, l.Walk.ID, n.peer(l.Peer))
	}
	for _, x := range r.Repeats {
		fmt.Fprintf(&b, "%d bytes once more from %s for session %d\n", x.Bytes, n.peer(x.Peer), x.Session)
	}
	for _, x := range r.Discards {
		fmt.Fprintf(&b, "discard %s\n", n.cid(x.CID()))
	}
	if r.Sync {
		b.WriteString("sync\n")
	}
	return b.String()
}

func formatMessage(m *wire.Message, n Namer) string {
	var b strings.Builder
	if m.Full {
		b.WriteString(" full")
	}
	for _, w := range m.Wants {
		switch {
		case w.Cancel:
			b.WriteString(" cancel ")
		case w.Type == wire.WantHave:
			b.WriteString(" want-have ")
		default:
			b.WriteString(" want-block ")
		}
		b.WriteString(n.cid(w.CID))
		formatLeaves(&b, w.Leaves)
		if w.Feed != 0 {
			fmt.Fprintf(&b, "(%d)", w.Feed)
		}
	}
	for _, p := range m.Presences {
		if p.Have {
			b.WriteString(" HAVE ")
		} else {
			b.WriteString(" DONT_HAVE ")
		}
		b.WriteString(n.cid(p.CID))
		formatLeaves(&b, p.Leaves)
	}
	formatRoots(&b, m, n)
	return b.String()
}

// formatLeaves prints a run as feed:first-last.
func formatLeaves(b *strings.Builder, l wire.Leaves) {
	switch {
	case l.Feed == 0:
	case l.N() == 1:
		fmt.Fprintf(b, "(%d:%d)", l.Feed, l.First)
	default:
		fmt.Fprintf(b, "(%d:%d-%d)", l.Feed, l.First, l.First+l.N()-1)
	}
}

// formatRoots prints what only TensorSwap has. The number of the message is left out: it only counts.
func formatRoots(b *strings.Builder, m *wire.Message, n Namer) {
	if m.Credit != 0 {
		fmt.Fprintf(b, " credit %d", m.Credit)
	}
	if m.Info.Set {
		fmt.Fprintf(b, " info up=%v down=%v", m.Info.Uploading, m.Info.Downloading)
	}
	for _, f := range m.Follows {
		fmt.Fprintf(b, " follow %d:%s", f.Feed, n.cid(f.Root))
		if f.Count > 0 || f.First > 0 {
			fmt.Fprintf(b, "[%d+%d]", f.First, f.Count)
		}
		if f.Durable {
			b.WriteString(" durably")
		}
		if !f.Proof.IsZero() {
			b.WriteString(" with a proof")
		}
		if f.Stop {
			b.WriteString(" no more")
		}
	}
	for _, h := range m.Haves {
		if h.Denied {
			fmt.Fprintf(b, " denied %d", h.Feed)
			continue
		}
		verb := "have"
		if h.Lost {
			verb = "lost"
		}
		fmt.Fprintf(b, " %s %d:%s of %d", verb, h.Feed, formatBits(h.Bits), h.Leaves)
	}
	for _, w := range m.Walks {
		if w.Stop {
			fmt.Fprintf(b, " stop-walk %d", w.ID)
			continue
		}
		fmt.Fprintf(b, " walk %d:%s bytes=%d push=%d", w.ID, n.cid(w.Root), w.Bytes, w.Push)
		if w.Depth > 0 {
			fmt.Fprintf(b, " depth=%d", w.Depth)
		}
		if w.Leaves {
			b.WriteString(" leaves")
		}
		if w.Spread {
			b.WriteString(" spread")
		}
		if !w.Proof.IsZero() {
			b.WriteString(" with a proof")
		}
	}
	if len(m.Blocks) > 0 {
		fmt.Fprintf(b, " with %d blocks", len(m.Blocks))
	}
	for _, w := range m.Walked {
		fmt.Fprintf(b, " walked %d:%s", w.ID, nameOf(walkStatusNames[:], int(w.Status)))
		if len(w.Pushed) > 0 {
			fmt.Fprintf(b, " push %s of %d", formatBits(w.Pushed), w.Leaves)
		}
	}
}

var walkStatusNames = [...]string{"whole", "part", "absent", "refused", "denied"}

// formatBits prints runs as 0-3,7; none is -.
func formatBits(bits wire.Bits) string {
	var b strings.Builder
	for first, count := range bits.Ones() {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		if b.Len() > 200 {
			b.WriteString("…")
			break
		}
		fmt.Fprint(&b, first)
		if count > 1 {
			fmt.Fprintf(&b, "-%d", first+count-1)
		}
	}
	if b.Len() == 0 {
		return "-"
	}
	return b.String()
}

var askNames = [...]string{"asked whether it has it", "asked for it", "has it", "lacks it", "late"}

// Explain says of each want of a session where it stands and whom the engine asked, one line each, oldest first, at most
// max lines. It is for people and for tests that fail.
func (e *Engine) Explain(id SessionID, n Namer, max int) string {
	s := e.sessions[id]
	if s == nil {
		return ""
	}
	var b strings.Builder
	lines := 0
	s.log.each(func(w *want) {
		if lines++; lines > max {
			return
		}
		fmt.Fprintf(&b, "%s %v", n.cid(w.cid), w.state)
		if w.contested {
			b.WriteString(" contested")
		}
		for a := w.asks.head; a != nil; a = a.wnext {
			fmt.Fprintf(&b, ", %s (%v) %s %v ago", n.peer(a.p.id), a.p.health.State(), askNames[a.kind], e.now-a.at)
		}
		b.WriteByte('\n')
	})
	return b.String()
}
