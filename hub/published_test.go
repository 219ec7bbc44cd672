package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/names"
)

// seal signs in a way that anybody can check, and nobody should use: a test need not wait for cryptography.
type seal dray.PeerID

func (s seal) ID() (dray.PeerID, error)         { return dray.PeerID(s), nil }
func (s seal) Sign(text []byte) ([]byte, error) { return []byte(s), nil }

func checkSeal(key dray.PeerID, _, signature []byte) error {
	if string(signature) != string(key) {
		return errors.New("the signature is another's")
	}
	return nil
}

// gossip is a swarm of peers that answer after a while.
type gossip struct {
	t       *testing.T
	blocks  map[cid.Cid]dray.Block
	peers   []gossiper
	asked   atomic.Int64
	fetched atomic.Int64
}

type gossiper struct {
	id    dray.PeerID
	after time.Duration
	says  []*names.Record
}

func (g *gossip) Ask(ctx context.Context, q *names.Question, heard func(dray.PeerID, []*names.Record)) {
	g.asked.Add(1)
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for _, p := range g.peers {
		wg.Go(func() {
			select {
			case <-time.After(p.after):
				mu.Lock()
				defer mu.Unlock()
				var list []*names.Record
				for _, r := range p.says {
					if r.Answers(q) {
						list = append(list, r)
					}
				}
				heard(p.id, list)
			case <-ctx.Done():
			}
		})
	}
	wg.Wait()
}

func (g *gossip) Get(_ context.Context, c cid.Cid) (dray.Block, error) {
	b, ok := g.blocks[c]
	if !ok {
		return b, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound}
	}
	return b, nil
}

func (g *gossip) Blocks(ctx context.Context, _ cid.Cid, _ []dray.PeerID, use func(context.Context, dray.Getter) error) error {
	g.fetched.Add(1)
	return use(ctx, g)
}

func (g *gossip) Open(_ context.Context, _, file cid.Cid, size int64, _ []dray.PeerID) (Content, error) {
	return memory{bytes.NewReader(bytes.Repeat([]byte{1}, int(size)))}, nil
}

// says makes a commit, and a record of it that a key signs.
func (g *gossip) says(key, revision, content string, sequence uint64) *names.Record {
	g.t.Helper()
	c := commitOf(g.t, "org/name", map[string][]byte{"f": []byte(content)}, time.UnixMilli(1_700_000_000_000+int64(sequence)).UTC())
	blocks, err := c.Blocks()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, b := range blocks {
		g.blocks[b.CID()] = b
	}
	r := &names.Record{Repo: c.Repo, Revision: revision, Commit: c.ID, Block: blocks[len(blocks)-1].CID(), Sequence: sequence, Time: c.Time}
	if err := r.Sign(seal(key)); err != nil {
		g.t.Fatal(err)
	}
	return r
}

func trusting(keys ...string) func() *names.Trust {
	t := new(names.Trust)
	for _, k := range keys {
		t.Rules = append(t.Rules, names.Rule{Key: dray.PeerID(k)})
	}
	return func() *names.Trust { return t }
}

var orgName = names.Repo{Name: "org/name"}

func newGossip(t *testing.T) *gossip { return &gossip{t: t, blocks: make(map[cid.Cid]dray.Block)} }

func TestPublishedNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGossip(t)
		old, fresh := g.says("ada", "main", "old", 1), g.says("ada", "main", "new", 2)
		changed := 0
		p := NewPublished(PublishedConfig{Swarm: g, Verify: checkSeal, Trust: trusting("ada"), Changed: func() { changed++ }})
		g.peers = []gossiper{{"slow", time.Hour, nil}, {"a", 10 * time.Millisecond, []*names.Record{old}}, {"b", 100 * time.Millisecond, []*names.Record{fresh}}}
		start := time.Now()
		c, err := p.Commit(t.Context(), orgName, "main")
		if err != nil || c.ID != fresh.Commit {
			t.Fatalf("%+v, %v", c, err)
		}
		// Whoever is slower than that is not waited for.
		if d := time.Since(start); d != 160*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		if p.Commit(t.Context(), orgName, "main"); g.asked.Load() != 1 || g.fetched.Load() != 1 || changed != 1 {
			t.Errorf("asked %d times, fetched %d times, changed %d times", g.asked.Load(), g.fetched.Load(), changed)
		}
		// The commit's id is never asked about again, the branch after a while; if nobody answers then, what is known counts.
		time.Sleep(time.Minute)
		g.peers = nil
		for _, revision := range []string{fresh.Commit, old.Commit, "main"} {
			if c, err := p.Commit(t.Context(), orgName, revision); err != nil || revision != "main" && c.ID != revision {
				t.Errorf("%s: %+v, %v", revision, c, err)
			}
		}
		if g.asked.Load() != 2 {
			t.Errorf("asked %d times", g.asked.Load())
		}
		if _, err := p.Commit(t.Context(), orgName, "v9"); !errors.Is(err, ErrRevisionNotFound) {
			t.Errorf("a revision that nobody has: %v", err)
		}
	})
}

func TestPublishedAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGossip(t)
		trust := trusting()
		p := NewPublished(PublishedConfig{Swarm: g, Verify: checkSeal, Trust: func() *names.Trust { return trust() }})
		for range 3 {
			if _, err := p.Commit(t.Context(), orgName, "main"); !errors.Is(err, ErrRepoNotFound) {
				t.Fatal(err)
			}
		}
		if n := g.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(4 * time.Second)
		r := g.says("eve", "main", "x", 1)
		forged := *r
		forged.Key = "ada"
		g.peers = []gossiper{{"a", 0, []*names.Record{r, &forged}}}
		_, err := p.Commit(t.Context(), orgName, "main")
		if !errors.Is(err, ErrRepoNotFound) || !strings.Contains(err.Error(), "dray trust add "+dray.PeerID("eve").String()) ||
			strings.Contains(err.Error(), dray.PeerID("ada").String()) {
			t.Errorf("of a stranger: %v", err)
		}
		if list := p.Records(); len(list) != 0 {
			t.Errorf("a stranger's records are kept: %v", list)
		}
		trust = trusting("eve") // counts at once
		if c, err := p.Commit(t.Context(), orgName, "main"); err != nil || c.ID != r.Commit {
			t.Errorf("of somebody who is trusted now: %v", err)
		}
		trust = trusting()
		if _, err := p.Commit(t.Context(), orgName, "main"); !errors.Is(err, ErrRepoNotFound) {
			t.Errorf("of somebody who is trusted no more: %v", err)
		}
	})
}

// Several who ask the same at once ask once, and who leaves takes nobody's answer along.
func TestPublishedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGossip(t)
		r := g.says("ada", "main", "x", 1)
		g.peers = []gossiper{{"a", time.Second, []*names.Record{r}}}
		p := NewPublished(PublishedConfig{Swarm: g, Verify: checkSeal, Trust: trusting("ada")})
		gone, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { p.Commit(gone, orgName, "main") })
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if c, err := p.Commit(t.Context(), orgName, "main"); err != nil || c.ID != r.Commit {
					t.Errorf("%+v, %v", c, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		if n := g.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestPublishedOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGossip(t)
		own, other := g.says("me", "main", "mine", 1), g.says("ada", "main", "hers", 9)
		g.peers = []gossiper{{"a", 0, []*names.Record{other}}}
		var closed cid.Cid
		p := NewPublished(PublishedConfig{
			Swarm: g, Verify: checkSeal, Trust: trusting("me", "ada"), Self: "me", Closed: func(c cid.Cid) bool { return c == closed },
		})
		p.Learn(own)
		if c, err := p.Commit(t.Context(), orgName, "main"); err != nil || c.ID != own.Commit || g.asked.Load() != 0 {
			t.Errorf("%+v, %v, asked %d times", c, err, g.asked.Load())
		}
		q := &names.Question{Repo: orgName, Revision: "main"}
		nobody, all := func(*names.Record) bool { return false }, func(*names.Record) bool { return true }
		if list := p.Answer(q, nobody); len(list) != 1 {
			t.Errorf("answered %v", list)
		}
		closed = own.Block
		if _, err := p.Commit(t.Context(), orgName, "main"); !errors.Is(err, ErrGated) {
			t.Errorf("what is closed: %v", err)
		}
		if list := p.Answer(q, nobody); len(list) != 0 {
			t.Errorf("what is closed is told: %v", list)
		}
		if list := p.Answer(q, all); len(list) != 1 {
			t.Errorf("what is closed is not told to who may have it: %v", list)
		}
		if list, err := p.List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("what is closed is listed: %v, %v", list, err)
		}
		closed = cid.Undef
		if list, err := p.List(t.Context()); err != nil || len(list) != 1 || list[0].Refs[0].Commit != own.Commit {
			t.Errorf("listed: %v, %v", list, err)
		}
		if n := p.Forget(func(r *names.Record) bool { return r.Key == "me" }); n != 1 {
			t.Errorf("%d forgotten", n)
		}
		if c, err := p.Commit(t.Context(), orgName, "main"); err != nil || c.ID != other.Commit {
			t.Errorf("somebody else's then: %+v, %v", c, err)
		}
	})
}

func TestPublishedBroken(t *testing.T) {
	g := newGossip(t)
	p := NewPublished(PublishedConfig{Swarm: g, Verify: checkSeal, Trust: trusting("ada")})
	r := g.says("ada", "main", "x", 1)
	wrong := *r
	wrong.Commit = strings.Repeat("0", 40)
	p.Learn(&wrong)
	if _, err := p.Commit(t.Context(), orgName, wrong.Commit); !errors.Is(err, ErrUpstream) {
		t.Errorf("a record that names another commit's block: %v", err)
	}
	lost := g.says("ada", "lost", "y", 1)
	delete(g.blocks, lost.Block)
	p.Learn(lost)
	if _, err := p.Commit(t.Context(), orgName, lost.Commit); !errors.Is(err, ErrUpstream) {
		t.Errorf("a commit that nobody has: %v", err)
	}
	for _, repo := range []string{"../x", "api/x", ""} {
		if _, err := p.Commit(t.Context(), names.Repo{Name: repo}, "main"); !errors.Is(err, ErrRepoNotFound) {
			t.Errorf("%q: %v", repo, err)
		}
	}
	if _, err := p.Commit(t.Context(), orgName, "../main"); !errors.Is(err, ErrRevisionNotFound) {
		t.Errorf("a bad revision: %v", err)
	}
	c := commitOf(t, "org/name", map[string][]byte{"f": []byte("x")}, time.UnixMilli(0))
	f := c.Files[0]
	f.Root = cid.Undef
	if _, err := p.Open(t.Context(), c, f); !errors.Is(err, ErrEntryNotFound) {
		t.Errorf("a file that nobody has seen whole: %v", err)
	}
}

// What is remembered is bounded by what it weighs, and the last is remembered always.
func TestRecent(t *testing.T) {
	m := recent[int]{most: 10, weigh: func(n int) int { return n }}
	for i, n := range []int{4, 5, 1, 3, 99, 2} {
		m.put(fmt.Sprint(i), n)
		if got, ok := m.get(fmt.Sprint(i)); !ok || got != n {
			t.Errorf("%d is not remembered", i)
		}
		if len(m.order) > 1 && m.load() > m.most || len(m.order) != len(m.by) {
			t.Errorf("after %d: %v weigh %d", i, m.order, m.load())
		}
	}
	if want := []string{"5"}; !slices.Equal(m.order, want) {
		t.Errorf("%q are remembered", m.order)
	}
}

// The tree of a large repository is worked out once, and a page of it is found without looking at all.
func BenchmarkTree(b *testing.B) {
	files := make(map[string][]byte, 100_000)
	for i := range 100_000 {
		files[fmt.Sprintf("data/%03d/part-%07d.json", i%100, i)] = nil
	}
	c := commitOf(b, "org/name", files, time.UnixMilli(0))
	var t trees
	for b.Loop() {
		t.done = recent[[]treeEntry]{}
		t.of(c)
	}
}
