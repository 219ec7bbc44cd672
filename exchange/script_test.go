package exchange

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/internal/scripttest"
	"dray/wire"
)

// TestScripts runs the conversations in testdata, as package scripttest does: commands for one engine, and below the line what
// the engine asks of its driver after each.
//
// Peers are single words, blocks are c1, c2 and so on (c1..c9 is a range), sessions s1, s2 in order of creation. Control
// messages are written at once unless slow-writes was said. The commands are the methods of script below.
func TestScripts(t *testing.T) {
	scripttest.Run(t, "testdata/*.txt", func(t *testing.T, text string) string {
		s := newScript(t)
		return scripttest.Paragraphs(text, &s.out, func(words []string) { s.command(words[0], words[1:]) })
	})
}

// script drives one engine by text, playing its driver and all of its peers.
type script struct {
	t      *testing.T
	e      *Engine
	cfg    Config
	now    time.Duration
	blocks map[string]dray.Block
	names  map[cid.Cid]string
	slow   bool               // Sent only when the script says so
	ended  map[SessionID]bool // sessions whose end was announced
	wants  map[SessionID]map[string]bool
	out    strings.Builder

	manifests map[cid.Cid]*dray.Manifest
	swap      map[dray.PeerID]bool   // peers who speak TensorSwap
	seq       map[dray.PeerID]uint64 // of their last message
}

func newScript(t *testing.T) *script {
	return &script{
		t: t, blocks: map[string]dray.Block{}, names: map[cid.Cid]string{}, ended: map[SessionID]bool{},
		wants: map[SessionID]map[string]bool{}, manifests: map[cid.Cid]*dray.Manifest{},
		swap: map[dray.PeerID]bool{}, seq: map[dray.PeerID]uint64{},
	}
}

func (s *script) block(name string) dray.Block {
	b, ok := s.blocks[name]
	if !ok {
		return s.define(name, 100)
	}
	return b
}

func (s *script) define(name string, size int) dray.Block {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "c"))
	if err != nil {
		s.t.Fatalf("%q is no block", name)
	}
	if _, twice := s.blocks[name]; twice {
		s.t.Fatalf("%s was mentioned before its size was given", name)
	}
	b := testBlock(s.t, n, size)
	s.blocks[name], s.names[b.CID()] = b, name
	return b
}

func (s *script) cid(name string) cid.Cid { return s.block(name).CID() }

// each expands c1..c9.
func (s *script) each(name string) []string {
	lo, hi, ok := strings.Cut(name, "..")
	if !ok {
		return []string{name}
	}
	var out []string
	for i := s.number(lo[1:]); i <= s.number(hi[1:]); i++ {
		out = append(out, fmt.Sprintf("c%d", i))
	}
	return out
}

func (s *script) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) session(text string) SessionID {
	return SessionID(s.number(strings.TrimPrefix(text, "s")))
}

func (s *script) namer() Namer {
	return Namer{
		Peer: func(p dray.PeerID) string { return string(p) },
		CID: func(c cid.Cid) string {
			if n := s.names[c]; n != "" {
				return n
			}
			return c.String()
		},
	}
}

// options splits "key=value" and bare words.
func options(args []string) map[string]string {
	o := map[string]string{}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		o[k] = v
	}
	return o
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format, args...) }

var classes = map[string]Class{
	"prefetch": Prefetch, "": Normal, "normal": Normal, "high": High, "urgent": Urgent, "critical": Critical,
}

// command runs one line and prints what the engine asks for after it.
func (s *script) command(name string, args []string) {
	if name == "config" {
		o := options(args)
		num := func(k string) int64 {
			if o[k] == "" {
				return 0
			}
			return int64(s.number(o[k]))
		}
		s.cfg = Config{
			Window: num("window"), PeerWants: int(num("peer-wants")), ServeBytes: num("serve"),
			PeerServeBytes: num("peer-serve"), ReceiveBytes: num("receive"),
		}
		return
	}
	if s.e == nil {
		s.e = New(s.cfg)
		s.now = time.Millisecond
	}
	switch name {
	case "advance":
		s.advance(s.duration(args[0]))
		return
	case "slow-writes":
		s.slow = true
	case "block":
		s.define(args[0], s.number(args[1]))
	case "peer-up":
		for _, a := range args {
			name, kind, _ := strings.Cut(a, "(")
			id := dray.PeerID(name)
			s.swap[id], s.seq[id] = kind == "swap)", 0
			s.e.PeerUp(s.now, id, Caps{Haves: kind != "old)", Indexes: kind == "swap)"})
		}
	case "goodbye":
		s.e.Goodbye(s.now, dray.PeerID(args[0]))
	case "peer-down":
		s.e.PeerDown(s.now, dray.PeerID(args[0]))
	case "sent":
		s.e.Sent(s.now, dray.PeerID(args[0]))
	case "heard":
		bytes := 0
		if len(args) > 1 {
			bytes = s.number(args[1])
		}
		s.e.Heard(s.now, dray.PeerID(args[0]), int64(bytes))
	case "offend":
		s.e.Offend(s.now, dray.PeerID(args[0]), &Violation{What: strings.Join(args[1:], " ")})
	case "dial-failed":
		s.e.DialFailed(s.now, dray.PeerID(args[0]))
	case "session", "want", "cancel", "cancel-session", "seal", "pause", "resume", "add-peer", "found":
		s.request(name, args)
	case "recv":
		s.recv(dray.PeerID(args[0]), args[1:])
	case "stored", "added", "loaded", "absent", "block-sent":
		s.store(name, args)
	case "root", "manifest", "manifest-loaded", "manifest-absent", "demand", "undemand", "removed", "synced", "count-copies",
		"copies", "restart", "walk-loaded":
		s.roots(name, args)
	case "near", "address", "probed", "ban", "unban", "health", "view":
		s.health(name, args)
	case "gate", "guard", "open", "unguard":
		s.access(name, args)
	case "limit", "service", "limits":
		s.limit(name, args)
	case "totals", "waits", "standings", "stats", "account", "banned":
		s.query(name, args)
	default:
		s.t.Fatalf("no command %q", name)
	}
	s.ready("")
}

// ready carries out nothing but the writing of control messages, and prints the rest.
func (s *script) ready(prefix string) {
	for {
		r := s.e.Ready()
		if err := s.e.Check(); err != nil {
			s.t.Fatalf("after %q: %v", s.out.String(), err)
		}
		if r.Empty() {
			return
		}
		s.printf("%s%s", prefix, r.Format(s.namer()))
		for _, d := range r.Delivers {
			key := d.CID.String()
			if s.ended[d.Session] || s.wants[d.Session][key] {
				s.t.Errorf("session %d: %s was delivered twice, or after the end", d.Session, s.names[d.CID])
			}
			s.wants[d.Session][key] = true
		}
		for _, ev := range r.Sessions {
			if s.ended[ev.Session] {
				s.t.Errorf("session %d ended twice", ev.Session)
			}
			s.ended[ev.Session] = true
		}
		if s.slow || len(r.Sends) == 0 {
			return
		}
		for _, sd := range r.Sends {
			s.e.Sent(s.now, sd.Peer)
		}
		prefix = ""
	}
}

// advance lets time pass as a driver does: from one Wake to the next.
func (s *script) advance(d time.Duration) {
	end := s.now + d
	for {
		at := s.e.Ready().Wake
		if at == 0 || at > end {
			break
		}
		s.now = max(at, s.now)
		s.e.Advance(s.now)
		s.ready(fmt.Sprintf("at %v\n", s.now.Round(time.Millisecond)))
	}
	s.now = end
	s.e.Advance(s.now)
	s.ready(fmt.Sprintf("at %v\n", s.now.Round(time.Millisecond)))
}

func (s *script) request(name string, args []string) {
	if name == "session" {
		o := options(args)
		cfg := SessionConfig{Class: classes[o["class"]]}
		if o["order"] == "rarest" {
			cfg.Order = Rarest
		}
		for _, p := range strings.Split(o["peers"], ",") {
			if p != "" {
				cfg.Peers = append(cfg.Peers, dray.PeerID(p))
			}
		}
		if o["root"] != "" {
			cfg.Root = s.cid(o["root"])
		}
		if o["walk"] != "" {
			cfg.Walk.Bytes = int64(s.number(o["walk"]))
			if o["push"] != "" {
				cfg.Walk.Push = int64(s.number(o["push"]))
			}
		}
		_, cfg.Only = o["only"]
		_, cfg.Bystander = o["bystander"]
		if o["max"] != "" {
			cfg.MaxWaiting = s.number(o["max"])
		}
		if o["deadline"] != "" {
			cfg.Deadline = s.now + s.duration(o["deadline"])
		}
		id := s.e.OpenSession(s.now, cfg)
		s.wants[id] = map[string]bool{}
		s.printf("session %d\n", id)
		return
	}
	id := s.session(args[0])
	switch name {
	case "want":
		o := options(args[2:])
		opt := WantOptions{Class: classes[o["class"]]}
		if o["deadline"] != "" {
			opt.Deadline = s.now + s.duration(o["deadline"])
		}
		if o["size"] != "" {
			opt.Size = int64(s.number(o["size"]))
		}
		for _, c := range s.each(args[1]) {
			opt.Order = uint64(s.number(c[1:]))
			if o["order"] != "" {
				opt.Order = uint64(s.number(o["order"]))
			}
			delete(s.wants[id], s.cid(c).String())
			s.e.Want(s.now, id, s.cid(c), opt)
		}
	case "cancel":
		for _, c := range s.each(args[1]) {
			s.e.Cancel(s.now, id, s.cid(c))
		}
	case "cancel-session":
		s.e.CancelSession(s.now, id)
	case "seal":
		s.e.Seal(s.now, id)
	case "pause":
		s.printf("paused: %v\n", s.e.Pause(s.now, id))
	case "resume":
		s.printf("resumed: %v\n", s.e.Resume(s.now, id))
	case "add-peer":
		s.e.AddPeer(s.now, id, dray.PeerID(args[1]))
	case "found":
		s.e.Found(s.now, id, dray.PeerID(args[1]))
	}
}

// recv hands one message to the engine: recv A full want-block c1 have c2 block c3 wrong …
func (s *script) recv(from dray.PeerID, args []string) {
	m := &wire.Message{}
	var blocks []dray.Block
	control := false
	for i := 0; i < len(args); i++ {
		verb := args[i]
		switch verb {
		case "full":
			m.Full = true
			continue
		case "in-lane":
			control = true
			continue
		case "+seq":
			s.seq[from]++
			continue
		case "wrong": // a block that nobody asked for, which is what wrong bytes hash to
			blocks = append(blocks, testBlock(s.t, 1<<40+int(s.now)+len(blocks), 64))
			continue
		}
		i++
		control = control || verb != "block"
		if s.recvRoots(m, verb, args[i]) {
			continue
		}
		for _, name := range s.each(args[i]) {
			c := s.cid(name)
			switch verb {
			case "have", "dont-have":
				m.Presences = append(m.Presences, wire.Presence{CID: c, Have: verb == "have"})
			case "block":
				blocks = append(blocks, s.block(name))
			case "want-block":
				m.Wants = append(m.Wants, wire.Entry{CID: c, SendDontHave: true, Priority: 1})
			case "want-have":
				m.Wants = append(m.Wants, wire.Entry{CID: c, SendDontHave: true, Priority: 1, Type: wire.WantHave})
			case "cancel":
				m.Wants = append(m.Wants, wire.Entry{CID: c, Cancel: true})
			default:
				s.t.Fatalf("recv: no such thing as %q", verb)
			}
		}
	}
	if s.swap[from] && control {
		s.seq[from]++
		m.Seq = s.seq[from]
		m.Full = m.Seq == 1
	}
	for _, b := range s.e.Receive(s.now, from, m, blocks) {
		name := s.names[b.CID()]
		if name == "" {
			name = "a stranger's block"
		}
		s.printf("refused %s\n", name)
	}
}

func (s *script) store(name string, args []string) {
	switch name {
	case "stored":
		o := strings.Join(args[1:], " ")
		var err error
		if o != "" {
			err = errors.New(o)
		}
		for _, c := range s.each(args[0]) {
			s.e.Stored(s.now, s.block(c), err)
		}
	case "added":
		for _, c := range s.each(args[0]) {
			s.e.Added(s.now, s.cid(c), int64(s.block(c).Size()))
		}
	case "loaded": // loaded A c1 stat, loaded A c1
		for _, c := range s.each(args[1]) {
			b := s.block(c)
			l := Load{Peer: dray.PeerID(args[0]), CID: b.CID(), Stat: len(args) > 2}
			s.e.Loaded(s.now, l, int64(b.Size()), b.Data(), nil)
		}
	case "absent":
		for _, c := range s.each(args[1]) {
			l := Load{Peer: dray.PeerID(args[0]), CID: s.cid(c), Stat: len(args) > 2}
			s.e.Loaded(s.now, l, 0, nil, dray.ErrNotFound)
		}
	case "block-sent":
		for _, c := range s.each(args[1]) {
			s.e.BlockSent(s.now, dray.PeerID(args[0]), s.cid(c))
		}
	}
}

func (s *script) query(name string, args []string) {
	switch name {
	case "totals":
		s.printf("%+v\n", s.e.Totals())
	case "waits":
		for _, w := range s.e.Waits(s.session(args[0]), s.now) {
			s.printf("%v", w.Reason)
			if w.Peer != "" {
				s.printf(" %s", string(w.Peer))
			}
			if w.Blocks > 0 {
				s.printf(", %d blocks of %d bytes", w.Blocks, w.Bytes)
			}
			s.printf(", since %v", (s.now - w.Since).Round(time.Millisecond))
			if w.Until != 0 {
				s.printf(", for %v", (w.Until - s.now).Round(time.Millisecond))
			}
			s.printf("\n")
		}
	case "standings":
		for _, w := range s.e.Standings(s.session(args[0])) {
			s.printf("%s %v: asked for %d blocks, delivered %d bytes, lacks %v\n", string(w.Peer), w.Health, w.Asked, w.Delivered, w.Lacks)
		}
	case "stats":
		st, ok := s.e.Stats(s.session(args[0]))
		s.printf("%+v %v\n", st, ok)
	case "account":
		a := s.e.Account(dray.PeerID(args[0]))
		s.printf("sent %d received %d duplicate %d\n", a.Sent, a.Received, a.Duplicate)
	case "banned":
		why, yes := s.e.Banned(s.now, dray.PeerID(args[0]))
		s.printf("%v %s\n", yes, why)
	}
}
