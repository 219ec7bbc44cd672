package unixfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	"github.com/ipfs/go-cid"

	"dray"
)

// countGetter counts what is got.
type countGetter struct {
	blockMap
	n map[cid.Cid]int
}

func (g countGetter) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	g.n[c]++
	return g.blockMap.Get(ctx, c)
}

func newReader(t testing.TB, g dray.Getter, root cid.Cid, cfg ReaderConfig) *Reader {
	t.Helper()
	r, err := NewReader(context.Background(), g, root, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReader(t *testing.T) {
	for _, start := range []Profile{V0(), V1()} {
		p := small(start, 10, 3)
		for _, n := range []int{0, 1, 10, 11, 30, 31, 90, 91, 1234} {
			data := noise(uint64(n), n)
			m := blockMap{}
			root := addFile(t, p, data, m.put)
			// TestReader of iotest checks Read, Seek and ReadAt against each other and their contracts.
			if err := iotest.TestReader(newReader(t, m, root.CID, ReaderConfig{}), data); err != nil {
				t.Errorf("%s, %d bytes: %v", p.Name, n, err)
			}
			var buf bytes.Buffer
			r := newReader(t, m, root.CID, ReaderConfig{})
			r.Seek(int64(n/3), io.SeekStart)
			k, err := r.WriteTo(&buf)
			if err != nil || k != int64(n-n/3) || !bytes.Equal(buf.Bytes(), data[n/3:]) || r.Size() != int64(n) {
				t.Errorf("%s, %d bytes: WriteTo gave %d, %v", p.Name, n, k, err)
			}
		}
	}
}

func TestReaderTrickleAndInline(t *testing.T) {
	ref := newReference()
	p := small(V0(), 20, 4)
	data := noise(9, 5000)
	root := ref.addFile(t, p, data, trickle.Layout)
	if err := iotest.TestReader(newReader(t, ref, root.Cid(), ReaderConfig{}), data); err != nil {
		t.Error(err)
	}
	// A node with content of its own before that of its links.
	b := pbBlock(t, node(rawLink, []byte("\x08\x02\x12\x04own \x18\x08\x20\x04")))
	m := blockMap{}
	m.put(b)
	m.put(rawLeaf)
	if err := iotest.TestReader(newReader(t, m, b.CID(), ReaderConfig{}), []byte("own leaf")); err != nil {
		t.Error(err)
	}
	w := NewWalk(b.CID(), WalkConfig{})
	files, err := contents(t, w, m, newRand(1))
	if err != nil || string(files[""]) != "own leaf" || w.Manifest().Leaf(0) != b.CID() {
		t.Errorf("walk: %q, %v", files[""], err)
	}
}

func TestReaderAt(t *testing.T) {
	p := small(V1(), 10, 3)
	data := noise(4, 2000)
	m := blockMap{}
	r := newReader(t, m, addFile(t, p, data, m.put).CID, ReaderConfig{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rng := newRand(uint64(i))
			for range 200 {
				off := rng.IntN(2100)
				buf := make([]byte, rng.IntN(300))
				n, err := r.ReadAt(buf, int64(off))
				want := data[min(off, 2000):min(off+len(buf), 2000)]
				if !bytes.Equal(buf[:n], want) || (err == io.EOF) != (n < len(buf)) {
					t.Errorf("ReadAt(%d, %d) = %d, %v", len(buf), off, n, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestReaderFetchesOnce(t *testing.T) {
	p := small(V1(), 10, 4)
	g := countGetter{blockMap{}, map[cid.Cid]int{}}
	root := addFile(t, p, noise(5, 1000), g.put)
	if _, err := io.Copy(io.Discard, newReader(t, g, root.CID, ReaderConfig{})); err != nil {
		t.Fatal(err)
	}
	for c, n := range g.n {
		if n != 1 {
			t.Errorf("%v was got %d times", c, n)
		}
	}
	clear(g.n)
	r := newReader(t, g, root.CID, ReaderConfig{})
	r.Seek(995, io.SeekStart)
	io.ReadAll(r)
	if len(g.n) > 5 {
		t.Errorf("reading the last bytes got %d blocks", len(g.n))
	}
}

// Ahead names every block before it is got, each once, and stays within its budget.
func TestReaderAhead(t *testing.T) {
	for _, start := range []Profile{V0(), V1()} {
		p := small(start, 10, 5)
		g := countGetter{blockMap{}, map[cid.Cid]int{}}
		root := addFile(t, p, noise(6, 2000), g.put)
		hinted := map[cid.Cid]int{}
		ahead := 0 // leaves hinted at and not read
		cfg := ReaderConfig{AheadBytes: 70}
		cfg.Ahead = func(cs []cid.Cid) {
			for _, c := range cs {
				hinted[c]++
				if g.n[c] != 0 {
					t.Errorf("%v was hinted at after it was got", c)
				}
				if n, err := Parse(g.blockMap[c]); err == nil && len(n.Links) == 0 {
					ahead++
				}
			}
		}
		r := newReader(t, g, root.CID, cfg)
		least := 100
		for i := range 200 {
			if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			if ahead > 8 {
				t.Fatalf("%d leaves of 10 bytes were hinted at and not read, with 70 bytes allowed", ahead)
			}
			if i > 1 && i < 190 {
				least = min(least, ahead)
			}
			ahead--
		}
		if least < 2 {
			t.Errorf("%s: at some place only %d leaves were hinted at ahead", p.Name, least)
		}
		for c, n := range g.n {
			if n != 1 {
				t.Errorf("%v was got %d times", c, n)
			}
		}
		// The root and the first blocks below it cannot be known before they are needed.
		if missed := len(g.n) - len(hinted); missed > 5 {
			t.Errorf("%s: %d of %d blocks were not hinted at", p.Name, missed, len(g.n))
		}
		for c, n := range hinted {
			if n != 1 {
				t.Errorf("%v was hinted at %d times", c, n)
			}
		}
	}
}

// Seeking about, and blocks that are missing far ahead, must not disturb reading.
func TestReaderAheadSeeks(t *testing.T) {
	p := small(V0(), 10, 3)
	data := noise(8, 1500)
	m := blockMap{}
	root := addFile(t, p, data, m.put)
	hints := 0
	r := newReader(t, m, root.CID, ReaderConfig{AheadBytes: 200, Ahead: func(cs []cid.Cid) { hints += len(cs) }})
	rng := newRand(8)
	for range 500 {
		off := rng.IntN(1500)
		r.Seek(int64(off), io.SeekStart)
		buf := make([]byte, min(rng.IntN(60), 1500-off))
		if _, err := io.ReadFull(r, buf); err != nil || !bytes.Equal(buf, data[off:off+len(buf)]) {
			t.Fatalf("at %d: %v", off, err)
		}
		if len(r.front.early) > 40 {
			t.Fatalf("%d nodes are kept", len(r.front.early))
		}
	}
	if hints == 0 {
		t.Error("no hints")
	}
	n, err := Parse(m[root.CID])
	if err != nil {
		t.Fatal(err)
	}
	delete(m, n.Links[1].CID)
	r = newReader(t, m, root.CID, ReaderConfig{AheadBytes: 1 << 20, Ahead: func([]cid.Cid) {}})
	whole := n.Links[0].Size
	if err := iotest.TestReader(io.LimitReader(r, whole), data[:whole]); err != nil {
		t.Errorf("a block missing far ahead: %v", err)
	}
}

// A file of tiny leaves and nodes costs no more memory than others.
func TestReaderAheadIsBounded(t *testing.T) {
	for _, links := range []int{2, 5000} {
		m := blockMap{}
		data := noise(3, 12000)
		root := addFile(t, small(V1(), 1, links), data, m.put)
		most := 0
		r := newReader(t, m, root.CID, ReaderConfig{Ahead: func(cs []cid.Cid) { most = max(most, len(cs)) }})
		for {
			if _, err := r.Read(make([]byte, 1)); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if len(r.front.early) > maxEarly {
				t.Fatalf("%d nodes were loaded early", len(r.front.early))
			}
		}
		if most == 0 || most > maxHints {
			t.Errorf("%d links a node: %d hints at once", links, most)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	ctx := context.Background()
	m := blockMap{}
	m.put(rawLeaf)
	dir := addTree(t, V1(), tree{"a": []byte("x")}, m.put)
	sym, _ := BuildSymlink(V1(), "x", m.put)
	for _, c := range []cid.Cid{dir.CID, sym.CID} {
		if _, err := NewReader(ctx, m, c, ReaderConfig{}); !errors.Is(err, ErrNotFile) {
			t.Errorf("%v: %v", c, err)
		}
	}
	gone := hashed(t, cid.Raw, []byte("gone")).CID()
	if _, err := NewReader(ctx, m, gone, ReaderConfig{}); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("missing root: %v", err)
	}
	liar := pbBlock(t, node(rawLink, []byte("\x08\x02\x18\x05\x20\x05")))
	wrong := pbBlock(t, node(link("", dir.CID, 4), []byte("\x08\x02\x18\x05\x20\x05")))
	m.put(liar)
	m.put(wrong)
	for b, want := range map[*dray.Block]error{&liar: ErrInvalid, &wrong: ErrNotFile} {
		_, err := io.ReadAll(newReader(t, m, b.CID(), ReaderConfig{}))
		if !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	r := newReader(t, m, rawLeaf.CID(), ReaderConfig{})
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("seek before the beginning")
	}
	if _, err := r.Seek(0, 9); err == nil {
		t.Error("unknown whence")
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read before the beginning")
	}
	r.Close()
	_, err1 := r.Read(make([]byte, 1))
	_, err2 := r.ReadAt(make([]byte, 1), 0)
	if !errors.Is(err1, dray.ErrClosed) || !errors.Is(err2, dray.ErrClosed) {
		t.Errorf("after Close: %v, %v", err1, err2)
	}
}

func TestReaderIdentity(t *testing.T) {
	c := identity(t, cid.Raw, []byte("inside"))
	got, err := io.ReadAll(newReader(t, blockMap{}, c, ReaderConfig{}))
	if err != nil || string(got) != "inside" {
		t.Errorf("%q, %v", got, err)
	}
}
