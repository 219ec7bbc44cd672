package unixfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"reflect"
	"testing"

	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	"github.com/ipfs/go-cid"

	"dray"
)

// walkAll drives w with blocks from g in a random order, and returns how many blocks it asked for.
func walkAll(t testing.TB, w *Walk, g dray.Getter, rng *rand.Rand) (asked int, err error) {
	t.Helper()
	var wants []cid.Cid
	for !w.Done() {
		before := len(wants)
		wants = w.Need(wants)
		asked += len(wants) - before
		if w.Outstanding() > w.cfg.Ahead {
			t.Fatalf("%d blocks outstanding, at most %d allowed", w.Outstanding(), w.cfg.Ahead)
		}
		if w.Err() != nil {
			return asked, w.Err()
		}
		if w.Done() {
			break
		}
		if len(wants) == 0 {
			t.Fatal("the walk is not done and wants nothing")
		}
		i := rng.IntN(len(wants))
		b, err := g.Get(context.Background(), wants[i])
		if err != nil {
			t.Fatal(err)
		}
		wants[i] = wants[len(wants)-1]
		wants = wants[:len(wants)-1]
		if err := w.Feed(b); err != nil {
			return asked, err
		}
		checkWalk(t, w)
	}
	return asked, nil
}

// checkWalk checks the list's own numbers.
func checkWalk(t testing.TB, w *Walk) {
	t.Helper()
	buffered, expected := 0, 0
	for s := w.head; s != nil; s = s.next {
		buffered += 1 + len(s.leaves)
		if s.asked {
			expected += s.guess
		}
		if s.next == nil && w.tail != s {
			t.Fatal("tail is not the last slot")
		}
	}
	if buffered != w.buffered || expected != w.expected {
		t.Fatalf("buffered %d, expected %d; counted %d, %d", w.buffered, w.expected, buffered, expected)
	}
}

// contents assembles the files that w lists, refuting leaves that are none, as a fetcher does.
func contents(t testing.TB, w *Walk, g dray.Getter, rng *rand.Rand) (map[string][]byte, error) {
	t.Helper()
restart:
	if _, err := walkAll(t, w, g, rng); err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	for _, e := range w.Entries() {
		if e.Kind == File {
			files[e.Path] = make([]byte, e.Size)
			if e.Leaves < 1 {
				t.Fatalf("file %q has no leaves", e.Path)
			}
		}
	}
	m := w.Manifest()
	for i := range m.Len() {
		offset, size := m.Extent(i)
		b, err := g.Get(context.Background(), m.Leaf(i))
		if err != nil {
			t.Fatal(err)
		}
		content, err := Content(b)
		if err != nil || int64(len(content)) != size {
			if err := w.Refute(m.Leaf(i)); err != nil {
				return nil, err
			}
			goto restart
		}
		e := w.Entries()[w.FileOf(i)]
		if e.Kind != File || i < e.First || i >= e.First+e.Leaves {
			t.Fatalf("leaf %d is not of file %+v", i, e)
		}
		copy(files[e.Path][offset-e.Offset:], content)
	}
	return files, nil
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

func TestWalkFile(t *testing.T) {
	for _, start := range []Profile{V0(), V1(), Native()} {
		p := small(start, 100, 3)
		for _, n := range []int{0, 1, 99, 100, 101, 300, 301, 900, 901, 5000} {
			data := noise(uint64(n), n)
			m := blockMap{}
			root := addFile(t, p, data, m.put)
			w := NewWalk(root.CID, WalkConfig{Ahead: 4})
			files, err := contents(t, w, m, newRand(1))
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", p.Name, n, err)
			}
			if !bytes.Equal(files[""], data) || len(files) != 1 {
				t.Errorf("%s, %d bytes: wrong content", p.Name, n)
			}
			leaves := max(1, (n+99)/100)
			if w.Manifest().Len() != leaves || w.Manifest().Root() != root.CID {
				t.Errorf("%s, %d bytes: %d leaves, want %d", p.Name, n, w.Manifest().Len(), leaves)
			}
		}
	}
}

// Leaves are told from interior nodes without being fetched.
func TestWalkAsksForSkeletonOnly(t *testing.T) {
	for _, start := range []Profile{V0(), V1()} {
		p := small(start, 100, 5)
		m := blockMap{}
		root := addFile(t, p, noise(3, 100*5*5*5), m.put)
		w := NewWalk(root.CID, WalkConfig{})
		asked, err := walkAll(t, w, m, newRand(1))
		if err != nil || asked != 1+5+25 {
			t.Errorf("%s: asked for %d blocks, want 31; %v", p.Name, asked, err)
		}
	}
}

// Layouts that the builder never makes: leaves at many depths.
func TestWalkTrickle(t *testing.T) {
	for _, start := range []Profile{V0(), V1()} {
		for _, n := range []int{0, 1, 50, 51, 250, 251, 1000, 10007} {
			p := small(start, 50, 5)
			ref := newReference()
			data := noise(uint64(n), n)
			root := ref.addFile(t, p, data, trickle.Layout)
			w := NewWalk(root.Cid(), WalkConfig{Ahead: 3})
			files, err := contents(t, w, ref, newRand(2))
			if err != nil || !bytes.Equal(files[""], data) {
				t.Errorf("%s, %d bytes: wrong content, %v", p.Name, n, err)
			}
			if len(w.refuted) > 0 {
				t.Errorf("%s, %d bytes: took an interior node for a leaf", p.Name, n)
			}
		}
	}
}

// tree is a directory tree in memory.
type tree map[string]any // []byte, string (symlink) or tree

func randomTree(rng *rand.Rand, depth int) tree {
	tr := tree{}
	for i := range rng.IntN(12) {
		name := fmt.Sprintf("%c-%d-ü", 'a'+rng.IntN(26), i)
		switch k := rng.IntN(10); {
		case k < 3 && depth > 0:
			tr[name] = randomTree(rng, depth-1)
		case k == 3:
			tr[name] = "../somewhere/" + name
		case k == 4:
			tr[name] = []byte("the same in many places")
		default:
			tr[name] = noise(rng.Uint64(), rng.IntN(1200))
		}
	}
	return tr
}

func addTree(t testing.TB, p Profile, tr tree, put func(dray.Block) error) Ref {
	t.Helper()
	d := NewDirBuilder(p, put)
	for name, v := range tr {
		var child Ref
		var err error
		switch v := v.(type) {
		case []byte:
			child = addFile(t, p, v, put)
		case string:
			child, err = BuildSymlink(p, v, put)
		case tree:
			child = addTree(t, p, v, put)
		}
		if err == nil {
			err = d.Add(name, child)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := d.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// flatten lists what a walk must report, by path.
func (tr tree) flatten(at string, into map[string]any) {
	for name, v := range tr {
		p := path.Join(at, name)
		into[p] = v
		if sub, ok := v.(tree); ok {
			into[p] = nil
			sub.flatten(p, into)
		}
	}
}

func TestWalkRandomTrees(t *testing.T) {
	for seed := range uint64(150) {
		rng := newRand(seed)
		start := []Profile{V0(), V1(), Native()}[seed%3]
		p := small(start, 1+rng.Int64N(300), 2+rng.IntN(5))
		p.ShardFanout = 8 << rng.IntN(3)
		p.ShardThreshold = rng.Int64N(800)
		tr := randomTree(rng, 3)
		m := blockMap{}
		root := addTree(t, p, tr, m.put)
		want := map[string]any{"": nil}
		tr.flatten("", want)

		w := NewWalk(root.CID, WalkConfig{Ahead: 1 + rng.IntN(20)})
		files, err := contents(t, w, m, rng)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if len(w.refuted) != 0 {
			t.Errorf("seed %d: leaves were refuted", seed)
		}
		got := map[string]any{}
		var total int64
		seen := map[string]bool{}
		for _, e := range w.Entries() {
			if e.Path != "" && !seen[dirOf(e.Path)] {
				t.Errorf("seed %d: %q came before its directory", seed, e.Path)
			}
			seen[e.Path] = true
			switch e.Kind {
			case File:
				got[e.Path] = files[e.Path]
			case Symlink:
				got[e.Path] = e.Target
			default:
				got[e.Path] = nil
			}
			total += e.Size
		}
		if !reflect.DeepEqual(got, want) || total != root.Size || w.Manifest().Size() != root.Size {
			t.Errorf("seed %d: walk differs from the tree; %d bytes, root says %d", seed, total, root.Size)
		}
		// The order of arrival must not show in the result.
		again := NewWalk(root.CID, WalkConfig{})
		if _, err := walkAll(t, again, m, rng); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again.Entries(), w.Entries()) || !reflect.DeepEqual(again.Manifest(), w.Manifest()) {
			t.Errorf("seed %d: two walks differ", seed)
		}
	}
}

func dirOf(p string) string {
	if d := path.Dir(p); d != "." {
		return d
	}
	return ""
}

func TestWalkNotUnixFS(t *testing.T) {
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: V1().Hash, MhLength: 32}, []byte{0xa0})
	if err != nil {
		t.Fatal(err)
	}
	w := NewWalk(b.CID(), WalkConfig{})
	w.Need(nil)
	if err := w.Feed(b); !errors.Is(err, ErrNotUnixFS) {
		t.Errorf("dag-cbor: %v", err)
	}
}

func TestWalkShallow(t *testing.T) {
	for _, threshold := range []int64{1 << 18, 100} {
		p := V0()
		p.ShardThreshold = threshold
		m, shards := blockMap{}, 0
		want := map[string]Ref{}
		d := NewDirBuilder(p, func(b dray.Block) error { shards++; return m.put(b) })
		for _, name := range namesOf(400, "entry %d") {
			want[name] = addTree(t, p, tree{"inside": []byte(name)}, m.put)
			d.Add(name, want[name])
		}
		root, err := d.Finish()
		if err != nil {
			t.Fatal(err)
		}
		w := NewWalk(root.CID, WalkConfig{Shallow: true})
		asked, err := walkAll(t, w, m, newRand(1))
		if err != nil || asked != shards || len(w.Entries()) != 401 || w.Manifest().Len() != 0 {
			t.Errorf("asked for %d blocks of %d, %d entries, %v", asked, shards, len(w.Entries()), err)
		}
		for _, e := range w.Entries()[1:] {
			if r := want[e.Path]; e.CID != r.CID || e.Size != r.Tsize || e.Kind != Unknown {
				t.Errorf("%+v, want %+v", e, r)
			}
		}
	}
}
