package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/hub"
	"dray/hub/mirror/mirrortest"
	"dray/names"
	"dray/node"
	"dray/origin"
	"dray/store"
	"dray/transport"
)

const mib = 1 << 20

// little makes pieces small, so that small files have many.
func little(c *Config, _ *UpstreamConfig) { c.Piece = mib }

// stageOf returns how far a party is with a file.
func (p *party) stageOf(t *testing.T, h *mirrortest.Hub, path string) stateLine {
	t.Helper()
	k, err := p.up.Commit(t.Context(), names.Repo{Name: testRepo}, "main")
	if err != nil {
		t.Fatal(err)
	}
	f, err := k.find(path)
	if err != nil {
		t.Fatal(err)
	}
	return p.stateFor(t.Context(), p.Self(), keyOf(k.Repo, f))
}

// until waits for something to become so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); pause(t.Context(), 2*time.Millisecond) {
		if time.Now().After(end) || t.Context().Err() != nil {
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}

// result is what a client got.
type result struct {
	data []byte
	err  error
}

// begin has every party read a file, and returns what waits for the results.
func begin(list []*party, path string) (results func() []result) {
	var wg sync.WaitGroup
	out := make([]result, len(list))
	for i, p := range list {
		wg.Go(func() { out[i].data, out[i].err = p.read(context.Background(), path) })
	}
	return func() []result {
		wg.Wait()
		return out
	}
}

// The leader dies in the middle: the others go on from what they have. So that it is not far ahead of them, the upstream stops
// for everybody until then.
func TestLeaderDies(t *testing.T) {
	const path, size, stop = "model.safetensors", 14 * mib, 4 * mib
	h := upstream(t, map[string][]byte{path: safetensors(9, 5*mib+3, size-5*mib)})
	dead := make(chan struct{})
	h.Set(func() {
		h.Resolve = func(_ http.ResponseWriter, r *http.Request) bool {
			if from, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-"); from != "" {
				if at, err := strconv.Atoi(from); err == nil && at >= stop {
					select {
					case <-dead:
					case <-r.Context().Done():
					}
				}
			}
			return false
		}
	})
	list := swarm(t, h, 3, func(c *Config, _ *UpstreamConfig) { c.Piece = mib / 2 })
	reads := begin(list, path)
	leader := -1
	until(t, "somebody leads, and everybody has 2 MiB", func() bool {
		ready := true
		for i, p := range list {
			s := p.stageOf(t, h, path)
			ready = ready && s.Front > 2*mib
			if s.Stage == stageLeading {
				leader = i
			}
		}
		return leader >= 0 && ready
	})
	list[leader].Close()
	list[leader].node.Close()
	close(dead)
	for i, r := range reads() {
		if i == leader && !errors.Is(r.err, hub.ErrUpstream) {
			t.Errorf("the leader's own client: %d bytes, %v", len(r.data), r.err)
		}
		if i != leader && (r.err != nil || string(r.data) != string(h.Files[path])) {
			t.Errorf("%d bytes, %v", len(r.data), r.err)
		}
	}
	// What the leader had got and not handed on may come twice: what lies between 2 MiB and where the upstream stopped, and the
	// last two pieces that it had asked for.
	if got := h.Sent(); got > h.Size()+4*mib {
		t.Errorf("upstream sent %d bytes of %d", got, h.Size())
	}
}

// Two that each follow the other, because each took the other for one that is fed: one of them gives up at once.
func TestCircle(t *testing.T) {
	const path = "model.safetensors"
	h := upstream(t, map[string][]byte{path: noise(3, 3*mib)})
	list := swarm(t, h, 2, func(c *Config, _ *UpstreamConfig) { c.Patience = time.Hour })
	flows := make([]*flow, len(list))
	for i, p := range list {
		c, f, err := p.find(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		x := target{repo: c.Repo, commit: c.ID, file: f, key: keyOf(c.Repo, f)}
		w := newFlow(p.Mirror, x)
		if err := w.recall(); err != nil {
			t.Fatal(err)
		}
		other := list[1-i].node.Self()
		w.change(func() { w.path = []dray.PeerID{other} })
		p.mu.Lock()
		p.flows[x.key] = w
		p.mu.Unlock()
		flows[i] = w
	}
	heavy := 0
	if outweighs(flows[0].key, list[1].node.Self(), list[0].node.Self()) {
		heavy = 1
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		err := flows[heavy].follow(ctx, list[1-heavy].node.Self())
		if !errors.Is(err, errFeed) || !strings.Contains(err.Error(), "waits for this node") {
			t.Errorf("who weighs more ends with %v", err)
		}
		cancel()
	})
	if err := flows[1-heavy].follow(ctx, list[heavy].node.Self()); !errors.Is(err, context.Canceled) {
		t.Errorf("who weighs less does not wait: %v", err)
	}
	wg.Wait()
	for _, w := range flows {
		if err := w.note.close(); err != nil {
			t.Error(err)
		}
	}
}

// The upstream goes dumb for the one that reads from it, and not for others: one of those goes on, and feeds the first, too.
func TestLeaderStuck(t *testing.T) {
	const path, size = "model.safetensors", 8 * mib
	h := upstream(t, map[string][]byte{path: safetensors(9, 5*mib+3, size-5*mib)})
	dumb := make(chan struct{})
	t.Cleanup(func() { close(dumb) })
	first := ""
	h.Set(func() {
		h.Resolve = func(w http.ResponseWriter, r *http.Request) bool {
			who, stuck := r.Header.Get("Authorization"), false
			h.Set(func() {
				if first == "" {
					first = who
				}
				stuck = who == first && !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") && !strings.HasPrefix(r.Header.Get("Range"), "bytes=1048576-")
			})
			if stuck {
				select {
				case <-dumb:
				case <-r.Context().Done():
				}
			}
			return stuck
		}
	})
	n := 0
	list := swarm(t, h, 3, func(c *Config, u *UpstreamConfig) {
		n++
		c.Piece, c.Patience, u.Token = mib, 4*time.Second, fmt.Sprint("token", n)
	})
	for i, r := range begin(list, path)() {
		if r.err != nil || string(r.data) != string(h.Files[path]) {
			t.Errorf("node %d: %d bytes, %v", i, len(r.data), r.err)
		}
	}
	once(t, h)
}

// An upstream that says another digest than its bytes have: no client gets all of a file.
func TestLies(t *testing.T) {
	const path = "weights/extra.bin"
	h := upstream(t, map[string][]byte{path: noise(2, 4*mib+5), "one.bin": noise(3, 100<<10)})
	h.Set(func() { h.Lie[path], h.Lie["one.bin"] = strings.Repeat("ab", 32), strings.Repeat("cd", 32) })
	list := swarm(t, h, 2, little)
	for _, path := range []string{path, "one.bin"} {
		for _, r := range begin(list, path)() {
			if !errors.Is(r.err, hub.ErrUpstream) || len(r.data) >= len(h.Files[path]) {
				t.Errorf("%s: %d bytes, %v", path, len(r.data), r.err)
			}
		}
	}
	for _, p := range list {
		p.roots.Range(func(root, _ any) bool { t.Errorf("%v is kept", root); return true })
	}
}

// Bytes that were changed on the way, once: clients are cut off, and those who ask again get what is right.
func TestChangedOnTheWay(t *testing.T) {
	const path = "weights/extra.bin"
	right := noise(2, 6*mib)
	h := upstream(t, map[string][]byte{path: right})
	wrong := slices.Clone(right)
	wrong[2*mib+7] ^= 1
	bad := upstream(t, map[string][]byte{path: wrong})
	left := int64(3)
	h.Set(func() {
		h.Resolve = func(w http.ResponseWriter, r *http.Request) bool {
			if left--; left < 0 {
				return false
			}
			bad.File(w, r, path)
			return true
		}
	})
	p := swarm(t, h, 1, little)[0]
	got, err := p.read(t.Context(), path)
	if err == nil && string(got) != string(right) {
		t.Error("wrong bytes, silently")
	}
	until(t, "it is right in the end", func() bool {
		got, err = p.read(t.Context(), path)
		return err == nil
	})
	if string(got) != string(right) {
		t.Error("wrong bytes")
	}
}

// A peer that says it has everything and feeds something else is found out, and not followed again.
func TestLiarFeeds(t *testing.T) {
	const path = "weights/extra.bin"
	h := upstream(t, map[string][]byte{path: noise(2, 5*mib)})
	net := transport.NewMemory(transport.MemoryConfig{})
	p := newParty(t, h, net, little)
	blocks := store.NewMem(0)
	fed := make(chan struct{}, 16)
	serve := func(_ context.Context, _ dray.PeerID, s transport.Stream) {
		defer s.Close()
		var q question
		if err := readLine(bufio.NewReader(s), mostQuestion, &q); err != nil {
			t.Error(err)
		}
		if q.Ask == askState {
			_ = writeLine(s, time.Second, stateLine{Stage: stageComplete})
			return
		}
		fed <- struct{}{}
		for i := range 5 {
			b, err := dray.Hashed(leafPrefix, noise(uint64(50+i), mib))
			if err == nil {
				err = blocks.Put(t.Context(), b)
			}
			if err != nil {
				t.Error(err)
			}
			_ = writeLine(s, time.Second, lineOf(entry{begin: int64(i) * mib, end: int64(i+1) * mib, leaf: b.CID()}))
		}
		_ = writeLine(s, time.Second, feedLine{Root: leafOf(t, "x").String()})
	}
	liar, err := node.New(node.Config{Store: blocks, Network: net.NewHost(), Services: []node.Service{{Protocol: Protocol, Serve: serve}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { liar.Close() })
	if err := p.node.Connect(t.Context(), transport.Peer{ID: liar.Self(), Addrs: liar.Addrs()}); err != nil {
		t.Fatal(err)
	}
	until(t, "they are connected", func() bool { return len(p.Peers()) == 1 })
	got, err := p.read(t.Context(), path)
	if err == nil && string(got) != string(h.Files[path]) || err != nil && len(got) >= len(h.Files[path]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	until(t, "it is right in the end", func() bool {
		got, err = p.read(t.Context(), path)
		return err == nil
	})
	if string(got) != string(h.Files[path]) || len(fed) != 1 {
		t.Errorf("%d bytes, and the liar has fed %d times", len(got), len(fed))
	}
	once(t, h)
}

func leafOf(t *testing.T, s string) cid.Cid {
	t.Helper()
	b, err := dray.Hashed(leafPrefix, []byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return b.CID()
}

// The upstream sends clients to another host for the bytes: in a private network that has to be allowed, and no credentials go
// there.
func TestRedirect(t *testing.T) {
	const path, token = "weights/extra.bin", "hf_secret"
	h := upstream(t, map[string][]byte{path: noise(2, 5*mib)})
	cdn := upstream(t, h.Files)
	cdn.Handle(func(w http.ResponseWriter, r *http.Request) {
		cdn.Set(func() { cdn.Seen = append(cdn.Seen, r.Header.Clone()) })
		cdn.File(w, r, path)
	})
	h.Set(func() {
		h.Resolve = func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, cdn.URL+"/x?signature=1", http.StatusFound)
			return true
		}
	})
	p := swarm(t, h, 1, func(c *Config, u *UpstreamConfig) { c.Piece, u.Token = mib, token })[0]
	_, err := p.read(t.Context(), path)
	if !errors.Is(err, hub.ErrUpstream) || !errors.Is(err, origin.ErrPrivate) || cdn.Answers() != 0 {
		t.Errorf("a redirect into a private network: %v", err)
	}
	p = swarm(t, h, 1, func(c *Config, u *UpstreamConfig) { c.Piece, u.Token, u.AllowPrivate = mib, token, true })[0]
	asked := len(h.Seen)
	p.wants(t, h)
	once(t, cdn)
	for _, head := range h.Seen {
		if head.Get("Authorization") != "Bearer "+token {
			t.Errorf("the upstream was asked without a token: %v", head)
		}
	}
	if len(cdn.Seen) < 3 || len(h.Seen)-asked > 4 {
		t.Errorf("asked elsewhere %d times, and the upstream %d", len(cdn.Seen), len(h.Seen)-asked)
	}
	for _, head := range cdn.Seen {
		if head.Get("Authorization") != "" || strings.Contains(fmt.Sprint(head), token) {
			t.Errorf("the token went elsewhere: %v", head)
		}
	}
}

// Addresses that the upstream gave out expire in the middle.
func TestRedirectExpires(t *testing.T) {
	const path = "weights/extra.bin"
	h := upstream(t, map[string][]byte{path: noise(2, 9*mib)})
	served := 0
	cdn := upstream(t, h.Files)
	cdn.Handle(func(w http.ResponseWriter, r *http.Request) {
		expired := false
		cdn.Set(func() {
			served++
			expired = served%2 == 0 && r.URL.Query().Get("fresh") != fmt.Sprint(served-1)
		})
		if expired {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		cdn.File(w, r, path)
	})
	h.Set(func() {
		h.Resolve = func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, fmt.Sprintf("%s/x?fresh=%d", cdn.URL, served), http.StatusFound)
			return true
		}
	})
	p := swarm(t, h, 1, func(c *Config, u *UpstreamConfig) { c.Piece, u.AllowPrivate = mib, true })[0]
	p.wants(t, h)
	once(t, cdn)
}

// Somebody reads the end of a file that is arriving, here and at a follower: it comes before the rest, and no byte twice.
func TestEndFirst(t *testing.T) {
	const path = "model.safetensors"
	h := upstream(t, map[string][]byte{path: safetensors(4, 9*mib+9, 7*mib)})
	h.Set(func() { h.Rate = 6 * mib })
	list := swarm(t, h, 2, little)
	for _, p := range list {
		p.nearBy, p.endSoon = mib, 2*mib
	}
	reads := begin(list, path)
	until(t, "both are at it", func() bool {
		a, b := list[0].stageOf(t, h, path), list[1].stageOf(t, h, path)
		return a.Front > 0 && b.Front > 0
	})
	data := h.Files[path]
	all(list, func(p *party) {
		c, f, err := p.find(t.Context(), path)
		if err != nil {
			t.Error(err)
			return
		}
		r, err := p.Open(t.Context(), c, f)
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		for _, span := range [][2]int{{11*mib + 11, mib}, {len(data) - 1000, 1000}} {
			got := make([]byte, span[1])
			if _, err := r.Seek(int64(span[0]), io.SeekStart); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(r, got); err != nil || string(got) != string(data[span[0]:][:span[1]]) {
				t.Errorf("a range: %v", err)
			}
			if s := p.stageOf(t, h, path); s.Stage == stageComplete || s.Front > 13*mib {
				t.Errorf("the range at %d came when all was there up to %d", span[0], s.Front)
			}
		}
	})
	for _, r := range reads() {
		if r.err != nil || string(r.data) != string(data) {
			t.Errorf("%d bytes, %v", len(r.data), r.err)
		}
	}
	once(t, h)
}

// An upstream without ranges sends a file once all the same.
func TestNoRanges(t *testing.T) {
	h := upstream(t, model())
	h.Set(func() { h.NoRanges = true })
	list := swarm(t, h, 2, little)
	all(list, func(p *party) { p.wants(t, h) })
	once(t, h)
}

// The root of what came is the one that adding the same file gives, so that it is found whoever has it.
func TestRoots(t *testing.T) {
	h := upstream(t, model())
	p := swarm(t, h, 1, little)[0]
	p.wants(t, h)
	dir := t.TempDir()
	for path, data := range h.Files {
		file := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := p.node.Add(t.Context(), file, node.AddConfig{OnlyHash: true})
		if err != nil {
			t.Fatal(err)
		}
		until(t, fmt.Sprintf("%s, which is %v when it is added, to be kept under that", path, r.Root), func() bool {
			_, ok := p.roots.Load(r.Root) // soon after its last byte was read
			return ok
		})
	}
}

// A Mirror that is closed in the middle goes on from there, and so does one that nobody reads from for a while.
func TestGoesOn(t *testing.T) {
	const path = "weights/extra.bin"
	for _, how := range []string{"closed", "idle"} {
		t.Run(how, func(t *testing.T) {
			h := upstream(t, map[string][]byte{path: noise(2, 12*mib)})
			h.Set(func() { h.Rate = 12 * mib })
			var cfg Config
			p := swarm(t, h, 1, func(c *Config, _ *UpstreamConfig) { c.Piece, c.Linger = mib, 10*time.Millisecond; cfg = *c })[0]
			ctx, cancel := context.WithCancel(t.Context())
			reads := make(chan error, 1)
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				_, err := p.read(ctx, path)
				reads <- err
			})
			until(t, "3 MiB are here", func() bool { return p.stageOf(t, h, path).Front > 3*mib })
			if how == "closed" {
				p.Mirror.Close()
				cfg.Upstream, cfg.Blocks, cfg.Swarm = p.up, p, p
				m, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				p.Mirror = m
			} else {
				cancel()
			}
			if err := <-reads; err == nil {
				t.Error("the client was not told")
			}
			cancel()
			until(t, "it stops", func() bool { return p.stageOf(t, h, path).Stage == stageNone })
			p.wants(t, h)
			if got := h.Sent(); got > h.Size()+8*mib {
				t.Errorf("upstream sent %d bytes of %d", got, h.Size())
			}
		})
	}
}

// Who looks at a header only does not bring all of a large file here.
func TestGlance(t *testing.T) {
	const path = "model.safetensors"
	h := upstream(t, map[string][]byte{path: safetensors(4, 30*mib)})
	h.Set(func() { h.Rate = 2 * mib })
	p := swarm(t, h, 1, little)[0]
	c, f, err := p.find(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Open(t.Context(), c, f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 64)); err != nil {
		t.Error(err)
	}
	r.Close()
	until(t, "it stops", func() bool { return p.stageOf(t, h, path).Stage == stageNone })
	if got := h.Sent(); got > 20*mib {
		t.Errorf("upstream sent %d bytes for a header", got)
	}
}

// What the upstream does not show to everybody is not fed to everybody.
func TestRestricted(t *testing.T) {
	h := upstream(t, map[string][]byte{"weights/extra.bin": noise(2, 3*mib)})
	h.Set(func() { h.Gated = true })
	for _, p := range swarm(t, h, 2, little) {
		p.wants(t, h)
	}
	if got := h.Sent(); got != 2*h.Size() {
		t.Errorf("strangers: upstream sent %d bytes of %d", got, h.Size())
	}
	h.Forget()
	friends := func(c *Config, _ *UpstreamConfig) { c.Trusts = func(dray.PeerID) bool { return true } }
	for _, p := range swarm(t, h, 2, friends) {
		p.wants(t, h)
	}
	once(t, h)
}

// A node that comes when the upstream is gone gets what a trusted peer has, and nothing on the word of a stranger.
func TestComesLate(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		t.Run(fmt.Sprint(trusted), func(t *testing.T) {
			h := upstream(t, model())
			net := transport.NewMemory(transport.MemoryConfig{})
			a := newParty(t, h, net, little)
			a.wants(t, h)
			h.Set(func() { h.Down = true })
			b := newParty(t, h, net, func(c *Config, u *UpstreamConfig) {
				c.Trusts = func(p dray.PeerID) bool { return trusted && p == a.Self() }
				u.Attempts = 2
			})
			connect(t, a, b)
			if trusted {
				b.wants(t, h)
				once(t, h)
			} else if _, err := b.read(t.Context(), "config.json"); !errors.Is(err, hub.ErrUpstream) {
				t.Errorf("on the word of a stranger: %v", err)
			}
		})
	}
}

// Content that its keeper has dropped comes from a peer, and content that nobody has any more from the upstream.
func TestCollected(t *testing.T) {
	h := upstream(t, map[string][]byte{"weights/extra.bin": noise(2, 5*mib)})
	list := swarm(t, h, 2, little)
	all(list, func(p *party) { p.wants(t, h) })
	once(t, h)
	drop := func(p *party) {
		p.roots.Clear()
		for s, err := range p.store.All(t.Context()) {
			if err == nil {
				err = p.store.Delete(t.Context(), s.CID)
			}
			if err != nil {
				t.Error(err)
			}
			p.node.Removed(s.CID)
		}
	}
	drop(list[0])
	list[0].wants(t, h)
	once(t, h)
	all(list, drop)
	list[1].wants(t, h)
	if got := h.Sent(); got != 2*h.Size() {
		t.Errorf("upstream sent %d bytes of %d", got, h.Size())
	}
}
