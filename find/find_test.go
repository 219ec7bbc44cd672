package find

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/internal/scripttest"
)

// root returns a CID that a name stands for.
func root(name string) cid.Cid {
	b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, 0x12), []byte(name))
	if err != nil {
		panic(err)
	}
	return b.CID()
}

// TestScripts runs the scripts in testdata. Each line is a command, followed by what it printed, which begins with ">".
//
//	at DURATION                      the time from here on
//	config KEY=N…                    an empty table, search and schedule with such bounds
//	learn CID PEER SOURCE [TTL] [ADDR…]
//	around PEER                      it is on the local network
//	has|lacks CID PEER, reached|failed PEER, missed CID, changed
//	providers CID                    who, as the table orders them
//	neighbours                       who is around
//	missing CID                      whether asking is pointless
//	search AFTER…                    begins a search of so many finders
//	found PEER [dull], ended, start  what happens to it
//	add|remove CID, done CID [KEPT], gone CID, take
func TestScripts(t *testing.T) {
	scripttest.Run(t, "testdata/*.txt", func(t *testing.T, text string) string {
		var out strings.Builder
		s := newScript()
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, ">") {
				continue
			}
			out.WriteString(line)
			if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
				for _, l := range s.run(t, words) {
					out.WriteString("> " + l + "\n")
				}
			}
			if err := s.table.Check(); err != nil {
				t.Fatalf("after %q: %v", line, err)
			}
		}
		return out.String()
	})
}

type script struct {
	now    time.Duration
	table  *Table
	search *Search
	plan   *Schedule
	roots  map[string]string
}

func newScript() *script {
	return &script{table: New(Config{}), plan: NewSchedule(ScheduleConfig{}), roots: make(map[string]string)}
}

func (s *script) root(name string) cid.Cid {
	c := root(name)
	s.roots[c.KeyString()] = name
	return c
}

func (s *script) run(t *testing.T, words []string) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	span := func(text string) time.Duration {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	list := func(all []Provider) {
		for _, p := range all {
			line := fmt.Sprintf("%s %v %.2f until %v", string(p.ID), p.Source, p.Score, p.Until)
			if p.Exhausted {
				line += fmt.Sprintf(", exhausted until %v", p.Back)
			}
			if len(p.Addrs) > 0 {
				line += " at " + strings.Join(p.Addrs, " ")
			}
			say("%s", line)
		}
		if len(all) == 0 {
			say("nobody")
		}
	}
	arg := func(i int) string {
		if i >= len(words) {
			t.Fatalf("%v: too short", words)
		}
		return words[i]
	}
	switch words[0] {
	case "at":
		s.now = span(arg(1))
	case "config":
		var c Config
		var p ScheduleConfig
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			switch key {
			case "percid":
				c.PerCID = n
			case "cids":
				c.CIDs = n
			case "around":
				c.Around = n
			case "atonce":
				p.AtOnce = n
			default:
				t.Fatalf("no key %q", key)
			}
		}
		s.table, s.plan = New(c), NewSchedule(p)
	case "learn":
		i := slices.Index(sourceNames[:], arg(3))
		p := Provider{ID: dray.PeerID(arg(2)), Source: Source(i)}
		ttl := time.Duration(0)
		if len(words) > 4 {
			ttl, p.Addrs = span(words[4]), words[5:]
		}
		if s.table.Learn(s.now, s.root(arg(1)), p, ttl) {
			say("new")
		}
	case "around":
		s.table.LearnAround(s.now, Provider{ID: dray.PeerID(arg(1))}, time.Minute)
	case "has":
		s.table.Has(s.now, s.root(arg(1)), dray.PeerID(arg(2)))
	case "lacks":
		s.table.Lacks(s.now, s.root(arg(1)), dray.PeerID(arg(2)))
	case "reached":
		s.table.Reached(s.now, dray.PeerID(arg(1)))
	case "failed":
		s.table.Failed(s.now, dray.PeerID(arg(1)))
	case "missed":
		s.table.Missed(s.now, s.root(arg(1)))
	case "changed":
		s.table.Changed()
	case "providers":
		list(s.table.Providers(s.now, s.root(arg(1))))
	case "neighbours":
		list(s.table.Around(s.now))
	case "missing":
		if until, ok := s.table.Missing(s.now, s.root(arg(1))); ok {
			say("until %v", until)
		} else {
			say("ask")
		}
	case "search":
		var c SearchConfig
		for _, w := range words[1:] {
			c.After = append(c.After, span(w))
		}
		s.search = NewSearch(s.now, c)
		s.status(say)
	case "found":
		if !s.search.Found(dray.PeerID(arg(1)), len(words) == 2) {
			say("again")
		}
		s.status(say)
	case "ended":
		s.search.Ended()
		s.status(say)
	case "start":
		s.status(say)
	case "add":
		s.plan.Add(s.now, s.root(arg(1)))
	case "remove":
		s.plan.Remove(s.root(arg(1)))
	case "done":
		kept := time.Duration(0)
		if len(words) > 2 {
			kept = span(words[2])
		}
		s.plan.Done(s.now, s.root(arg(1)), kept)
	case "gone":
		s.plan.Failed(s.now, s.root(arg(1)))
	case "take":
		for {
			c, ok := s.plan.Take(s.now)
			if !ok {
				break
			}
			say("%s", s.roots[c.KeyString()])
		}
		if at, ok := s.plan.Wake(); ok {
			say("next at %v", at.Round(time.Millisecond))
		}
	default:
		t.Fatalf("there is no command %q", words[0])
	}
	return out
}

func (s *script) status(say func(string, ...any)) {
	begin := s.search.Start(s.now)
	switch {
	case s.search.Over(s.now) && s.search.Missed():
		say("over: missed")
	case s.search.Over(s.now):
		say("over")
	default:
		say("begin %v, wake at %v", begin, s.search.Wake())
	}
}

// TestTableBounds feeds a small table with random inputs: its bounds and invariants hold after each, what is not exhausted comes
// first, and nobody is exhausted for ever.
func TestTableBounds(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg := Config{PerCID: 1 + r.IntN(5), CIDs: 1 + r.IntN(8), Around: 1 + r.IntN(4), Idle: 1 + r.IntN(6), TTL: time.Hour}
		tab := New(cfg)
		now := time.Duration(0)
		for range 2000 {
			now += time.Duration(r.Int64N(int64(time.Minute)))
			c, id := root(fmt.Sprint(r.IntN(16))), dray.PeerID(fmt.Sprint("p", r.IntN(24)))
			switch r.IntN(9) {
			case 0, 1, 2:
				tab.Learn(now, c, Provider{ID: id, Source: Source(1 + r.IntN(6)), Addrs: []string{fmt.Sprint(r.IntN(40))}}, 0)
			case 3:
				tab.LearnAround(now, Provider{ID: id}, time.Duration(r.Int64N(int64(time.Hour))))
			case 4:
				tab.Failed(now, id)
			case 5:
				tab.Reached(now, id)
			case 6:
				tab.Lacks(now, c, id)
			case 7:
				tab.Has(now, c, id)
			case 8:
				tab.Missed(now, c)
				if until, ok := tab.Missing(now, c); !ok || until-now > time.Minute {
					t.Fatalf("seed %d: a miss lasts until %v, %v", seed, until-now, ok)
				}
			}
			if err := tab.Check(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			list := tab.Providers(now, c)
			if !slices.IsSortedFunc(list, compare) {
				t.Fatalf("seed %d: out of order: %+v", seed, list)
			}
			for _, p := range list {
				if p.Until <= now || p.Score <= 0 || p.Score >= 1 || p.Back > now+30*time.Minute || p.Exhausted != (p.Back > now) {
					t.Fatalf("seed %d: at %v it names %+v", seed, now, p)
				}
			}
		}
		now += 2 * time.Hour
		for i := range 16 {
			if list := tab.Providers(now, root(fmt.Sprint(i))); len(list) > 0 {
				t.Fatalf("seed %d: %+v has not expired", seed, list)
			}
		}
	}
}

// TestScheduleRepeats runs a schedule for ten days with random failures and removals: what is announced is announced again before
// its record is forgotten, no more are under way than may be, and a flood of roots is spread out.
func TestScheduleRepeats(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		const kept = 24 * time.Hour
		s := NewSchedule(ScheduleConfig{})
		last := make(map[string]time.Duration)
		failed := make(map[string]bool)
		now := time.Duration(0)
		for i := range 300 {
			if !s.Add(now, root(fmt.Sprint(i))) || s.Add(now, root(fmt.Sprint(i))) {
				t.Fatal("added twice or not at all")
			}
		}
		burst := 0
		for now < 240*time.Hour {
			var under []cid.Cid
			for {
				c, ok := s.Take(now)
				if !ok {
					break
				}
				under = append(under, c)
			}
			if len(under) > 3 {
				t.Fatalf("seed %d: %d at once", seed, len(under))
			}
			if len(under) > 1 {
				burst++
			}
			for _, c := range under {
				k := c.KeyString()
				if before, ok := last[k]; ok && !failed[k] && now-before > kept {
					t.Fatalf("seed %d: announced again after %v", seed, now-before)
				}
				if failed[k] = r.IntN(10) == 0; failed[k] {
					s.Failed(now, c)
					continue
				}
				last[k] = now
				s.Done(now, c, kept)
			}
			at, ok := s.Wake()
			if !ok {
				t.Fatalf("seed %d: nothing is due", seed)
			}
			now = max(at, now+time.Millisecond)
		}
		if len(last) != 300 || burst > 600 {
			t.Fatalf("seed %d: %d roots announced, %d bursts", seed, len(last), burst)
		}
		for i := range 300 {
			s.Remove(root(fmt.Sprint(i)))
		}
		if _, ok := s.Wake(); ok || s.Len() != 0 {
			t.Fatal("something is left")
		}
	}
}

// TestSearchEnds runs searches with random events: each ends, never has more finders at work than it may, and begins each once.
func TestSearchEnds(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		cfg := SearchConfig{Enough: 1 + r.IntN(4), Parallel: 1 + r.IntN(3), Most: time.Minute}
		for range 1 + r.IntN(5) {
			cfg.After = append(cfg.After, time.Duration(len(cfg.After))*time.Duration(r.Int64N(int64(10*time.Second))))
		}
		s := NewSearch(0, cfg)
		now, running := time.Duration(0), 0
		begun := make(map[int]bool)
		for step := 0; ; step++ {
			for _, i := range s.Start(now) {
				if begun[i] {
					t.Fatalf("seed %d: finder %d begins twice", seed, i)
				}
				begun[i] = true
				running++
			}
			if running > cfg.Parallel || step > 1000 {
				t.Fatalf("seed %d: %d finders at work at step %d", seed, running, step)
			}
			if s.Over(now) {
				break
			}
			switch {
			case running > 0 && r.IntN(3) == 0:
				s.Ended()
				running--
			case running > 0 && r.IntN(3) == 0:
				s.Found(dray.PeerID(fmt.Sprint(r.IntN(5))), r.IntN(2) == 0)
			default:
				if at := s.Wake(); at < now {
					t.Fatalf("seed %d: wakes in the past", seed)
				} else {
					now = max(at, now+time.Millisecond)
				}
			}
		}
	}
}

// TestRates: a peer has its burst, then one at a time, and one that is forgotten begins anew.
func TestRates(t *testing.T) {
	r := NewRates(RateConfig{Burst: 4, Every: time.Second, Peers: 2})
	for _, row := range []struct {
		at   time.Duration
		id   dray.PeerID
		n    int
		want int
	}{
		{0, "a", 3, 3},
		{0, "a", 3, 1},
		{0, "a", 1, 0},
		{0, "b", 9, 4},
		{1500 * time.Millisecond, "a", 9, 1},
		{2 * time.Second, "a", 9, 1},
		{time.Hour, "a", 9, 4},
		{time.Hour, "c", 1, 1},
		{time.Hour, "b", 9, 4}, // c took b's place, so b begins anew, and a is forgotten
		{time.Hour, "a", 9, 4},
		{time.Hour, "b", 1, 0},
	} {
		if got := r.Take(row.at, row.id, row.n); got != row.want {
			t.Errorf("at %v, %s gets %d of %d, want %d", row.at, string(row.id), got, row.n, row.want)
		}
	}
	if r.Give(time.Hour, "b", 99); r.Take(time.Hour, "b", 99) != 4 {
		t.Error("more came back than there may be")
	}
}
