package find

import (
	"cmp"
	"container/list"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// Config bounds a [Table]. The zero value works.
type Config struct {
	// TTL is how long a record lasts that says nothing else. If zero, 24 hours.
	TTL time.Duration
	// PerCID is how many providers of a CID are kept, the best ones. If zero, 20.
	PerCID int
	// CIDs is how many CIDs have records or misses; beyond it the one that was used least recently is forgotten. If zero, 10,000.
	CIDs int
	// Around is how many peers of the local network are kept. If zero, 256.
	Around int
	// Idle is how many peers without a record are remembered for how they fared, the latest. If zero, 4,096.
	Idle int
	// Probation is how long a peer is exhausted after a failure, doubled with each one more in a row up to ProbationMost. If zero,
	// 30 seconds and 30 minutes.
	Probation, ProbationMost time.Duration
	// HalfLife is after what time a success or failure weighs half as much. If zero, 30 minutes.
	HalfLife time.Duration
	// Miss is how long nobody is asked after everybody was in vain, doubled with each time up to MissMost. If zero, one second
	// and one minute.
	Miss, MissMost time.Duration
}

func (c *Config) setDefaults() {
	c.TTL = cmp.Or(c.TTL, 24*time.Hour)
	c.PerCID = cmp.Or(c.PerCID, 20)
	c.CIDs = cmp.Or(c.CIDs, 10_000)
	c.Around = cmp.Or(c.Around, 256)
	c.Idle = cmp.Or(c.Idle, 4096)
	c.Probation = cmp.Or(c.Probation, 30*time.Second)
	c.ProbationMost = cmp.Or(c.ProbationMost, 30*time.Minute)
	c.HalfLife = cmp.Or(c.HalfLife, 30*time.Minute)
	c.Miss = cmp.Or(c.Miss, time.Second)
	c.MissMost = cmp.Or(c.MissMost, time.Minute)
}

// maxAddrs is how many addresses of a peer are kept, the latest.
const maxAddrs = 16

// Table remembers who holds what. It is not safe for concurrent use.
//
// Invariants: cids has an element for each entry, the latest used in front; a peer is in idle exactly if it has no records.
type Table struct {
	cfg     Config
	entries map[string]*entry
	cids    *list.List // of *entry
	around  entry      // the peers of the local network
	peers   map[dray.PeerID]*peer
	idle    *list.List // of *peer, the latest in front
	epoch   uint64     // counts changes after which it is worth asking again
}

// entry is what is known of one CID.
type entry struct {
	key     string
	at      *list.Element
	records []*record
	misses  int           // in a row
	missed  time.Duration // until when nobody is asked
	epoch   uint64        // as of the last miss
}

// record says that a peer holds a CID.
type record struct {
	p      *peer
	source Source
	seen   time.Duration
	until  time.Duration
	lacks  int           // how often in a row it did not have it
	back   time.Duration // until when it is thought to lack it
}

// peer is what is known of one.
type peer struct {
	id        dray.PeerID
	addrs     []string
	refs      int // records
	at        *list.Element
	good, bad float64 // successes and failures, as they weighed at weighed
	weighed   time.Duration
	fails     int           // in a row
	back      time.Duration // until when it is exhausted
}

// New returns an empty table.
func New(cfg Config) *Table {
	cfg.setDefaults()
	return &Table{
		cfg: cfg, entries: make(map[string]*entry), cids: list.New(), peers: make(map[dray.PeerID]*peer), idle: list.New(),
	}
}

// Learn notes that a peer is said to hold c, for ttl; if that is zero, for the Config's TTL. A record that lasts longer, or is of
// a more believable source, keeps that. It reports whether the provider is new or was thought to lack c and source is itself.
func (t *Table) Learn(now time.Duration, c cid.Cid, p Provider, ttl time.Duration) (fresh bool) {
	return t.learn(now, t.entry(c, true), p, ttl, t.cfg.PerCID)
}

// LearnAround notes that a peer is on the local network, for ttl.
func (t *Table) LearnAround(now time.Duration, p Provider, ttl time.Duration) (fresh bool) {
	p.Source = LAN
	return t.learn(now, &t.around, p, ttl, t.cfg.Around)
}

// Around returns the peers of the local network, as Providers does those of a CID.
func (t *Table) Around(now time.Duration) []Provider { return t.list(now, &t.around) }

// Providers returns who is said to hold c, the most promising first and the exhausted ones last.
func (t *Table) Providers(now time.Duration, c cid.Cid) []Provider {
	e := t.entry(c, false)
	if e == nil {
		return nil
	}
	return t.list(now, e)
}

func (t *Table) list(now time.Duration, e *entry) []Provider {
	t.expire(now, e)
	out := make([]Provider, len(e.records))
	for i, r := range e.records {
		out[i] = t.provider(now, r)
	}
	slices.SortFunc(out, compare)
	return out
}

// provider describes a record.
func (t *Table) provider(now time.Duration, r *record) Provider {
	back := max(r.p.back, r.back)
	return Provider{
		ID: r.p.id, Addrs: r.p.addrs, Source: r.source, Until: r.until, Score: t.score(now, r.p), Exhausted: back > now, Back: back,
	}
}

// compare puts the more promising provider first.
func compare(a, b Provider) int {
	switch {
	case a.Exhausted != b.Exhausted:
		if a.Exhausted {
			return 1
		}
		return -1
	case a.Exhausted && a.Back != b.Back:
		return cmp.Compare(a.Back, b.Back)
	}
	return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Source, b.Source), cmp.Compare(b.Until, a.Until),
		cmp.Compare(a.ID, b.ID))
}

func (t *Table) learn(now time.Duration, e *entry, p Provider, ttl time.Duration, most int) (fresh bool) {
	if p.ID == "" {
		return false
	}
	t.expire(now, e)
	if ttl <= 0 || ttl > t.cfg.TTL {
		ttl = t.cfg.TTL
	}
	i := slices.IndexFunc(e.records, func(r *record) bool { return r.p.id == p.ID })
	if i < 0 {
		i, fresh = len(e.records), true
		o := t.peer(p.ID)
		t.refer(o, +1)
		e.records = append(e.records, &record{p: o, source: p.Source})
	}
	r := e.records[i]
	r.seen, r.until = now, max(r.until, now+ttl)
	r.source = min(r.source, p.Source)
	if t.addresses(r.p, p.Addrs) && r.p.back > now {
		r.p.back, fresh = now, true // it was not tried there
	}
	if len(e.records) > most {
		worst := 0
		for k := range e.records {
			if compare(t.provider(now, e.records[k]), t.provider(now, e.records[worst])) > 0 {
				worst = k
			}
		}
		fresh = fresh && e.records[worst] != r
		t.drop(e, worst)
	}
	return fresh
}

// addresses notes where a peer may be, and reports whether that is news.
func (t *Table) addresses(p *peer, addrs []string) (fresh bool) {
	if len(addrs) == 0 {
		return false
	}
	var list []string
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		if a = strings.TrimSuffix(a, "/p2p/"+p.id.String()); !slices.Contains(list, a) {
			list = append(list, a)
			fresh = fresh || !slices.Contains(p.addrs, a)
		}
	}
	for _, a := range p.addrs {
		if len(list) < maxAddrs && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	p.addrs = list
	return fresh
}

// Addrs returns where a peer may be, as far as the table knows.
func (t *Table) Addrs(id dray.PeerID) []string {
	if p := t.peers[id]; p != nil {
		return p.addrs
	}
	return nil
}

// Forget drops the record that a peer holds c.
func (t *Table) Forget(c cid.Cid, id dray.PeerID) {
	if e := t.entry(c, false); e != nil {
		if i := slices.IndexFunc(e.records, func(r *record) bool { return r.p.id == id }); i >= 0 {
			t.drop(e, i)
		}
	}
}

// Reached notes that a peer could be connected to, or has connected.
func (t *Table) Reached(now time.Duration, id dray.PeerID) {
	p := t.peer(id)
	t.weigh(now, p)
	p.good++
	p.fails, p.back = 0, 0
	t.epoch++
}

// Failed notes that a peer could not be connected to: it is exhausted for a while.
func (t *Table) Failed(now time.Duration, id dray.PeerID) {
	p := t.peer(id)
	t.weigh(now, p)
	p.bad++
	p.back = now + t.probation(p.fails)
	p.fails++
}

// Has notes that a peer has delivered some of what lies under c, or says itself that it has it.
func (t *Table) Has(now time.Duration, c cid.Cid, id dray.PeerID) {
	e := t.entry(c, true)
	t.learn(now, e, Provider{ID: id, Source: Exchange}, 0, t.cfg.PerCID)
	for _, r := range e.records {
		if r.p.id == id {
			r.lacks, r.back = 0, 0
		}
	}
	e.misses, e.missed = 0, 0
}

// Lacks notes that a peer has not what it was said to have: as a provider of c it is exhausted for a while.
func (t *Table) Lacks(now time.Duration, c cid.Cid, id dray.PeerID) {
	e := t.entry(c, false)
	if e == nil {
		return
	}
	for _, r := range e.records {
		if r.p.id == id && r.back <= now {
			r.back = now + t.probation(r.lacks)
			r.lacks++
		}
	}
}

// probation is how long it lasts after so many failures before.
func (t *Table) probation(before int) time.Duration {
	return doubled(t.cfg.Probation, before, t.cfg.ProbationMost)
}

// doubled returns d doubled so often, and no more than most.
func doubled(d time.Duration, times int, most time.Duration) time.Duration {
	for ; times > 0 && d < most; times-- {
		d *= 2
	}
	return min(d, most)
}

// Missed notes that everybody was asked about c and nobody was found.
func (t *Table) Missed(now time.Duration, c cid.Cid) {
	e := t.entry(c, true)
	e.missed, e.epoch = now+doubled(t.cfg.Miss, e.misses, t.cfg.MissMost), t.epoch
	e.misses++
}

// Missing returns until when it is pointless to ask about c, or ok false.
func (t *Table) Missing(now time.Duration, c cid.Cid) (until time.Duration, ok bool) {
	e := t.entry(c, false)
	if e == nil || e.missed <= now || e.epoch != t.epoch {
		return 0, false
	}
	return e.missed, true
}

// Changed says that there is somebody new to ask, or another way to: misses are forgotten.
func (t *Table) Changed() { t.epoch++ }

// entry returns what is known of c, which is used now; made on demand if create is set.
func (t *Table) entry(c cid.Cid, create bool) *entry {
	key := dray.HashKey(c)
	e := t.entries[key]
	if e != nil {
		t.cids.MoveToFront(e.at)
		return e
	}
	if !create {
		return nil
	}
	for len(t.entries) >= t.cfg.CIDs {
		last := t.cids.Back().Value.(*entry)
		for len(last.records) > 0 {
			t.drop(last, len(last.records)-1)
		}
		t.cids.Remove(last.at)
		delete(t.entries, last.key)
	}
	e = &entry{key: key}
	e.at = t.cids.PushFront(e)
	t.entries[key] = e
	return e
}

// expire drops the records that are over.
func (t *Table) expire(now time.Duration, e *entry) {
	for i := len(e.records) - 1; i >= 0; i-- {
		if e.records[i].until <= now {
			t.drop(e, i)
		}
	}
}

func (t *Table) drop(e *entry, i int) {
	t.refer(e.records[i].p, -1)
	e.records = slices.Delete(e.records, i, i+1)
}

// peer returns what is known of a peer, made on first use.
func (t *Table) peer(id dray.PeerID) *peer {
	p := t.peers[id]
	if p == nil {
		p = &peer{id: id}
		t.peers[id] = p
		t.rest(p)
	} else if p.at != nil {
		t.idle.MoveToFront(p.at)
	}
	return p
}

// refer counts a record more or less.
func (t *Table) refer(p *peer, by int) {
	p.refs += by
	switch {
	case p.refs > 0 && p.at != nil:
		t.idle.Remove(p.at)
		p.at = nil
	case p.refs == 0 && p.at == nil:
		t.rest(p)
	}
}

// rest keeps a peer without records for a while.
func (t *Table) rest(p *peer) {
	p.at = t.idle.PushFront(p)
	for t.idle.Len() > t.cfg.Idle {
		last := t.idle.Remove(t.idle.Back()).(*peer)
		last.at = nil
		delete(t.peers, last.id)
	}
}

// weigh makes old tries of a peer weigh less.
func (t *Table) weigh(now time.Duration, p *peer) {
	if age := now - p.weighed; age > 0 {
		f := math.Exp2(-float64(age) / float64(t.cfg.HalfLife))
		p.good, p.bad, p.weighed = p.good*f, p.bad*f, now
	}
}

// score is the share of tries that went well, with one of each kind that never was.
func (t *Table) score(now time.Duration, p *peer) float64 {
	f := 1.0
	if age := now - p.weighed; age > 0 {
		f = math.Exp2(-float64(age) / float64(t.cfg.HalfLife))
	}
	return (p.good*f + 1) / (p.good*f + p.bad*f + 2)
}

// Size is how much a [Table] holds.
type Size struct {
	// CIDs have an entry, Records say who provides them or is around, and Peers are known.
	CIDs, Records, Peers int
}

// Size returns how much the table holds.
func (t *Table) Size() Size {
	s := Size{CIDs: len(t.entries), Records: len(t.around.records), Peers: len(t.peers)}
	for _, e := range t.entries {
		s.Records += len(e.records)
	}
	return s
}

// Check returns what is wrong with the table, for tests: its bounds and invariants.
func (t *Table) Check() error {
	refs := make(map[*peer]int)
	count := func(e *entry, most int) error {
		seen := make(map[dray.PeerID]bool)
		for _, r := range e.records {
			if refs[r.p]++; seen[r.p.id] {
				return fmt.Errorf("%v twice in one entry", r.p.id)
			}
			if seen[r.p.id] = true; t.peers[r.p.id] != r.p {
				return fmt.Errorf("a record of %v, which is forgotten", r.p.id)
			}
		}
		if len(e.records) > most {
			return fmt.Errorf("%d records, more than %d", len(e.records), most)
		}
		return nil
	}
	for _, e := range t.entries {
		if err := count(e, t.cfg.PerCID); err != nil {
			return err
		}
	}
	if err := count(&t.around, t.cfg.Around); err != nil {
		return err
	}
	if len(t.entries) > t.cfg.CIDs || t.cids.Len() != len(t.entries) {
		return fmt.Errorf("%d entries, %d in order, at most %d", len(t.entries), t.cids.Len(), t.cfg.CIDs)
	}
	idle := 0
	for id, p := range t.peers {
		if p.refs != refs[p] || (p.refs == 0) != (p.at != nil) || len(p.addrs) > maxAddrs {
			return fmt.Errorf("%v counts %d records of %d, idle %v, %d addresses", id, p.refs, refs[p], p.at != nil, len(p.addrs))
		}
		if p.refs == 0 {
			idle++
		}
	}
	if idle != t.idle.Len() || idle > t.cfg.Idle {
		return fmt.Errorf("%d peers without records, %d in order, at most %d", idle, t.idle.Len(), t.cfg.Idle)
	}
	return nil
}
