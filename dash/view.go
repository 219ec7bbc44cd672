package dash

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"dray"
	"dray/node"
)

const (
	shownTransfers = 32
	shownEnded     = 16
	shownPeers     = 200
	shownJobs      = 100
	shownRecords   = 200 // of those that happened before the page was opened
	shownWaits     = 6
	slowLook       = 5 * time.Second // between looks at the disk
	peersLook      = time.Second
	ratesOver      = 2 * time.Second
)

// section is one part of the state, as JSON.
type section struct {
	text    []byte
	version uint64 // of the view, when the text changed last
}

// view is the state as it was last looked at. It is safe for concurrent use.
type view struct {
	cfg   *Config
	epoch int64

	look sync.Mutex // held while somebody looks, so that many who want to know cause one look

	mu        sync.Mutex
	version   uint64
	sections  map[string]*section
	flows     []flow // of the last minutes, without the seconds in which nothing passed
	second    int64  // the last one that is known
	record    uint64 // the last one that happened
	wake      chan struct{}
	at        time.Time // of the last look
	busy      bool
	listeners int
	quiet     chan struct{} // closed when nobody listens any more

	// Guarded by look.
	diskAt, peersAt time.Time
	rates           map[dray.PeerID]*rates
}

// flow is what passed in one second.
type flow struct {
	second  int64 // since 1970
	in, out int64
}

// MarshalJSON writes [second,in,out].
func (f flow) MarshalJSON() ([]byte, error) { return json.Marshal([3]int64{f.second, f.in, f.out}) }

// rates are how fast bytes pass to and from one peer.
type rates struct {
	sent, got int64
	at        time.Time
	up, down  float64
	seen      bool
}

func (v *view) begin(cfg *Config) {
	v.cfg, v.epoch = cfg, cfg.Node.Since().UnixNano()
	v.sections, v.wake = make(map[string]*section), make(chan struct{})
	v.rates = make(map[dray.PeerID]*rates)
}

// changed returns a channel that is closed when there is something new.
func (v *view) changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.wake
}

// pause is how long to wait before the next look.
func (v *view) pause() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.busy {
		return busyTick
	}
	return idleTick
}

// since returns what is new for a listener, as JSON, and what it has been sent then; nil if there is nothing.
func (v *view) since(at cursor, now time.Time) ([]byte, cursor) {
	v.mu.Lock()
	defer v.mu.Unlock()
	full := at.epoch != v.epoch || at.version > v.version || at.record > v.record
	if full {
		at = cursor{epoch: v.epoch}
	}
	var b bytes.Buffer
	b.WriteString(`{"time":`)
	put := func(x any) { // what is put here is numbers and plain structs
		text, _ := json.Marshal(x)
		b.Write(text)
	}
	put(now.UnixMilli())
	news := full
	if full {
		b.WriteString(`,"full":true`)
	}
	for _, name := range sectionNames {
		if s := v.sections[name]; s != nil && (full || s.version > at.version) {
			b.WriteString(`,"` + name + `":`)
			b.Write(s.text)
			news = true
		}
	}
	if v.record > at.record {
		b.WriteString(`,"events":`)
		put(eventsOf(v.cfg.Node.Records(at.record, shownRecords)))
		news = true
	}
	i, _ := slices.BinarySearchFunc(v.flows, at.second+1, func(f flow, s int64) int { return cmp.Compare(f.second, s) })
	if i < len(v.flows) || full {
		b.WriteString(`,"flow":`)
		put(append([]flow{}, v.flows[i:]...))
		news = news || i < len(v.flows)
	}
	b.WriteByte('}')
	if !news {
		return nil, at
	}
	return b.Bytes(), cursor{epoch: v.epoch, version: v.version, record: v.record, second: v.second}
}

var sectionNames = []string{"node", "running", "ended", "peers", "store", "caches", "jobs"}

// refresh looks, unless somebody has within the last fresh.
func (v *view) refresh(ctx context.Context, now time.Time, fresh time.Duration) {
	v.look.Lock()
	defer v.look.Unlock()
	v.mu.Lock()
	old := v.at.IsZero() || now.Sub(v.at) >= fresh
	v.mu.Unlock()
	if !old {
		return
	}
	found := make(map[string]any)
	found["node"] = v.node()
	list := v.cfg.Node.Transfers()
	found["running"] = v.running(&list, now)
	found["ended"] = v.ended(&list, now)
	if now.Sub(v.peersAt) >= peersLook {
		v.peersAt = now
		found["peers"] = v.peers(now)
	}
	if now.Sub(v.diskAt) >= slowLook {
		v.diskAt = now
		if v.cfg.Store != nil {
			if s, err := v.cfg.Store(ctx); err != nil {
				found["store"] = map[string]string{"error": err.Error()}
			} else {
				found["store"] = s
			}
		}
		if v.cfg.Caches != nil {
			found["caches"] = append([]Cache{}, v.cfg.Caches()...)
		}
	}
	if v.cfg.Jobs != nil {
		found["jobs"] = v.jobs(ctx)
	}
	flows, until := v.cfg.Node.Flows()
	last := v.cfg.Node.Records(0, 1)
	v.file(now, found, flows, until, last)
}

// file takes over what was found.
func (v *view) file(now time.Time, found map[string]any, flows []node.Flow, until time.Time, last []node.Record) {
	texts := make(map[string][]byte, len(found))
	for name, x := range found {
		text, err := json.Marshal(x)
		if err != nil {
			panic(err) // the types are ours, and plain
		}
		texts[name] = text
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	news := false
	for name, text := range texts {
		s := v.sections[name]
		if s == nil {
			s = &section{}
			v.sections[name] = s
		}
		if !bytes.Equal(s.text, text) {
			s.text, s.version = text, v.version+1
			news = true
		}
	}
	if news {
		v.version++
	}
	if len(last) > 0 && last[0].Seq != v.record {
		v.record, news = last[0].Seq, true
	}
	end := until.Unix()
	v.flows = v.flows[:0:0] // what was handed out stays as it was
	for i, f := range flows {
		if f.In != 0 || f.Out != 0 {
			v.flows = append(v.flows, flow{second: end - int64(len(flows)-i), in: f.In, out: f.Out})
		}
	}
	if k := len(v.flows); k > 0 && v.flows[k-1].second > v.second {
		v.second, news = v.flows[k-1].second, true
	}
	v.at = now
	r, _ := found["running"].(runningView)
	v.busy = len(r.List) > 0
	if news {
		close(v.wake)
		v.wake = make(chan struct{})
	}
}

// nodeView is the node as a whole.
type nodeView struct {
	Peer    string     `json:"peer"`
	Addrs   []string   `json:"addrs"`
	Version string     `json:"version"`
	Since   int64      `json:"since"`
	Health  string     `json:"health"`
	Parts   []partView `json:"parts"`
	Network string     `json:"network"`
	Limits  limitsView `json:"limits"`
	Actions bool       `json:"actions"`
}

type partView struct {
	Name   string `json:"name"`
	Health string `json:"health"`
	Reason string `json:"reason,omitempty"`
}

type limitsView struct {
	Up       int64 `json:"up"`
	Down     int64 `json:"down"`
	PeerUp   int64 `json:"peer_up"`
	PeerDown int64 `json:"peer_down"`
	// HeldUp and HeldDown say that more would pass but for the limits.
	HeldUp   bool `json:"held_up"`
	HeldDown bool `json:"held_down"`
}

func (v *view) node() nodeView {
	n := v.cfg.Node
	whole, parts := n.Vitals()
	state, _ := n.Outlook()
	l := n.Limits()
	x := nodeView{
		Peer: n.Self().String(), Addrs: append([]string{}, n.Addrs()...), Version: v.cfg.Version, Since: n.Since().UnixMilli(),
		Health: whole.String(), Network: strings.ToLower(state.String()), Parts: []partView{}, Actions: v.cfg.Steer != nil,
		Limits: limitsView{
			Up: l.Limits.Up, Down: l.Limits.Down, PeerUp: l.Limits.PeerUp, PeerDown: l.Limits.PeerDown, HeldUp: l.Up, HeldDown: l.Down,
		},
	}
	for _, p := range parts {
		x.Parts = append(x.Parts, partView{p.Name, p.Condition.String(), p.Reason})
	}
	return x
}

func (v *view) jobs(ctx context.Context) any {
	list, err := v.cfg.Jobs(ctx)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	more := max(len(list)-shownJobs, 0)
	return map[string]any{"list": append([]Job{}, list[more:]...), "more": more}
}

// eventView is one thing that happened.
type eventView struct {
	Seq      uint64 `json:"seq"`
	At       int64  `json:"at"`
	Kind     string `json:"kind"`
	Grave    bool   `json:"grave,omitempty"`
	Peer     string `json:"peer,omitempty"`
	Root     string `json:"root,omitempty"`
	Transfer uint64 `json:"transfer,omitempty"`
	Text     string `json:"text"`
}

func eventsOf(list []node.Record) []eventView {
	out := make([]eventView, 0, len(list))
	for _, r := range list {
		e := eventView{
			Seq: r.Seq, At: r.At.UnixMilli(), Kind: string(r.Kind), Grave: r.Grave, Peer: r.Peer.String(), Transfer: r.Transfer, Text: r.Text,
		}
		if r.Root.Defined() {
			e.Root = r.Root.String()
		}
		out = append(out, e)
	}
	return out
}
