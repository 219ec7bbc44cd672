package transport

import (
	"time"

	"dray"
)

// TentativeConfig bounds what is kept of peers whose admission is undecided. The zero value works.
type TentativeConfig struct {
	// Peers is how many may be undecided at a time. One more, and the least recently created is dismissed. If zero, 64.
	Peers int
	// Messages and Bytes bound what is kept of each: the most recent messages. If zero, 64 and 256 KiB.
	Messages, Bytes int
	// Age is how long a message is kept. If zero, one minute; if negative, for ever.
	Age time.Duration
	// Wait is how long a peer may stay undecided before it is dismissed. If zero, ten minutes; if negative, for ever.
	Wait time.Duration
}

func (c *TentativeConfig) setDefaults() {
	if c.Peers <= 0 {
		c.Peers = 64
	}
	if c.Messages <= 0 {
		c.Messages = 64
	}
	if c.Bytes <= 0 {
		c.Bytes = 256 << 10
	}
	if c.Age == 0 {
		c.Age = time.Minute
	}
	if c.Wait == 0 {
		c.Wait = 10 * time.Minute
	}
}

// Tentative keeps the last messages of peers whose admission is undecided, until they are admitted or dismissed. It decides
// and never waits: it has no goroutine and no clock, and is not safe for concurrent use. Its owner carries out what it says.
type Tentative[M any] struct {
	cfg    TentativeConfig
	guests map[dray.PeerID]*guest[M]
	order  []*guest[M] // least recently created first
}

// guest is one undecided peer.
type guest[M any] struct {
	peer    dray.PeerID
	since   time.Time // when it was created
	held    []kept[M] // oldest first
	bytes   int
	dropped int
}

type kept[M any] struct {
	m    M
	size int
	at   time.Time
}

// NewTentative returns a Tentative without peers.
func NewTentative[M any](cfg TentativeConfig) *Tentative[M] {
	cfg.setDefaults()
	return &Tentative[M]{cfg: cfg, guests: make(map[dray.PeerID]*guest[M])}
}

// Held is what was kept of a peer.
type Held[M any] struct {
	// Peer is who.
	Peer dray.PeerID
	// Messages are what is left, in the order in which they came.
	Messages []M
	// Aged are messages that had become too old; they are counted in Dropped.
	Aged []M
	// Dropped is how many came before Messages and are lost. What tells of changes cannot be used then.
	Dropped int
}

// Add begins to keep what a peer says. When there are too many peers, the one that was created first is dismissed: what was
// kept of it is returned, and its streams are to be closed. A peer that is there already keeps its place.
func (t *Tentative[M]) Add(now time.Time, peer dray.PeerID) (dismissed []Held[M]) {
	if t.guests[peer] != nil {
		return nil
	}
	for len(t.order) >= t.cfg.Peers {
		h, _ := t.Take(now, t.order[0].peer)
		dismissed = append(dismissed, h)
	}
	g := &guest[M]{peer: peer, since: now}
	t.guests[peer] = g
	t.order = append(t.order, g)
	return dismissed
}

// Has reports whether a peer is there.
func (t *Tentative[M]) Has(peer dray.PeerID) bool { return t.guests[peer] != nil }

// Hold keeps a message of a peer that is there, of so many bytes, and returns those that had to go for it. What is kept never has
// a gap: when a message is larger than the bound, it goes with all before it.
func (t *Tentative[M]) Hold(now time.Time, peer dray.PeerID, m M, size int) (dropped []M) {
	g := t.guests[peer]
	if g == nil {
		return []M{m}
	}
	dropped = t.age(g, now, nil)
	for len(g.held) > 0 && (len(g.held) >= t.cfg.Messages || g.bytes+size > t.cfg.Bytes) {
		dropped = g.drop(dropped)
	}
	if size > t.cfg.Bytes {
		g.dropped++
		return append(dropped, m)
	}
	g.held = append(g.held, kept[M]{m, size, now})
	g.bytes += size
	return dropped
}

// drop lets the oldest message go.
func (g *guest[M]) drop(to []M) []M {
	k := g.held[0]
	g.held[0] = kept[M]{}
	g.held = g.held[1:]
	g.bytes -= k.size
	g.dropped++
	return append(to, k.m)
}

// age lets go what is too old.
func (t *Tentative[M]) age(g *guest[M], now time.Time, to []M) []M {
	for t.cfg.Age > 0 && len(g.held) > 0 && now.Sub(g.held[0].at) >= t.cfg.Age {
		to = g.drop(to)
	}
	return to
}

// Take hands over what was kept of a peer, which is not there any more: because it was admitted, or has left. It reports false
// when the peer is not there. Whoever takes it must let nothing new of that peer pass before it.
func (t *Tentative[M]) Take(now time.Time, peer dray.PeerID) (Held[M], bool) {
	g := t.guests[peer]
	if g == nil {
		return Held[M]{Peer: peer}, false
	}
	aged := t.age(g, now, nil)
	delete(t.guests, peer)
	for i, o := range t.order {
		if o == g {
			t.order = append(t.order[:i], t.order[i+1:]...)
			break
		}
	}
	h := Held[M]{Peer: peer, Aged: aged, Dropped: g.dropped}
	for _, k := range g.held {
		h.Messages = append(h.Messages, k.m)
	}
	return h, true
}

// Expire dismisses the peers that have been undecided for too long.
func (t *Tentative[M]) Expire(now time.Time) (dismissed []Held[M]) {
	for t.cfg.Wait > 0 && len(t.order) > 0 && now.Sub(t.order[0].since) >= t.cfg.Wait {
		h, _ := t.Take(now, t.order[0].peer)
		dismissed = append(dismissed, h)
	}
	return dismissed
}

// Due returns when Expire will have something to do; false if never.
func (t *Tentative[M]) Due() (time.Time, bool) {
	if t.cfg.Wait <= 0 || len(t.order) == 0 {
		return time.Time{}, false
	}
	return t.order[0].since.Add(t.cfg.Wait), true
}

// Peers returns who is there, the least recently created first.
func (t *Tentative[M]) Peers() []dray.PeerID {
	out := make([]dray.PeerID, 0, len(t.order))
	for _, g := range t.order {
		out = append(out, g.peer)
	}
	return out
}
