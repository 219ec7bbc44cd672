package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// grow begins to fetch f and expects every leaf.
func (f *testFile) grow(t *testing.T, s *Store) (*Growing, int) {
	t.Helper()
	g, err := s.Grow(t.Context(), f.path, int64(len(f.data)))
	must(t, err)
	filled := 0
	for i, b := range f.leaves {
		ok, err := g.Expect(b.CID(), f.offset(i), int64(b.Size()))
		must(t, err)
		if ok {
			filled++
		}
	}
	return g, filled
}

// finish puts what is missing, finishes, and checks the file. It returns how many leaves were missing.
func (f *testFile) finish(t *testing.T, s *Store, g *Growing) (fetched int) {
	t.Helper()
	for _, b := range f.leaves {
		if !g.Has(b.CID()) {
			fetched++
			must(t, s.Put(t.Context(), b))
		}
	}
	must(t, g.Finish(t.Context()))
	got, err := os.ReadFile(f.path)
	must(t, err)
	if !bytes.Equal(got, f.data) {
		t.Error("the file is not what it should be")
	}
	for _, b := range f.leaves {
		wantLeaf(t, s, b)
	}
	return fetched
}

func TestGrowResumes(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	f := makeLeaves(filepath.Join(dir, "f"), 1, 20, 100_000)
	s := openStore(t, Config{Dir: home})
	g, _ := f.grow(t, s)
	must(t, s.Put(t.Context(), f.leaves[:12]...))
	must(t, g.Close())
	if _, err := g.Expect(f.leaves[0].CID(), 0, 5); !errors.Is(err, dray.ErrClosed) {
		t.Errorf("Expect after Close: %v", err)
	}
	must(t, s.Close())

	s = openStore(t, Config{Dir: home})
	for _, b := range f.leaves[:12] {
		wantLeaf(t, s, b) // served although nobody has it growing
	}
	g, filled := f.grow(t, s)
	if filled != 12 {
		t.Errorf("%d places are filled, want 12", filled)
	}
	if n := f.finish(t, s, g); n != 8 {
		t.Errorf("%d leaves were fetched, want 8", n)
	}
	if st := verifyStore(t, s, true); st.Problems != 0 || st.Blocks != 20 {
		t.Errorf("%+v", st)
	}
}

// A part file that the index knows nothing of is hashed, and only what matches is kept.
func TestGrowRecovers(t *testing.T) {
	dir := t.TempDir()
	f := makeLeaves(filepath.Join(dir, "f"), 1, 20, 64<<10)
	part, err := os.Create(partPath(f.path))
	must(t, err)
	must(t, part.Truncate(int64(len(f.data))))
	for _, i := range []int{2, 3, 11, 19} {
		_, err := part.WriteAt(f.leaves[i].Data(), f.offset(i))
		must(t, err)
	}
	_, err = part.WriteAt(f.leaves[0].Data(), f.offset(7)) // in the wrong place
	must(t, err)
	must(t, part.Close())

	s := openStore(t, Config{})
	g, filled := f.grow(t, s)
	if filled != 0 || !g.Resumed() {
		t.Errorf("%d places are filled, resumed: %v", filled, g.Resumed())
	}
	n, size, err := g.Recover(t.Context())
	if n != 4 || size != 4*64<<10 || err != nil {
		t.Errorf("recovered %d leaves, %d bytes, %v; want 4", n, size, err)
	}
	if n := f.finish(t, s, g); n != 16 {
		t.Errorf("%d leaves were fetched, want 16", n)
	}
}

func TestGrowDiscard(t *testing.T) {
	dir := t.TempDir()
	f := makeLeaves(filepath.Join(dir, "f"), 1, 4, 100_000)
	s := openStore(t, Config{})
	g, _ := f.grow(t, s)
	must(t, s.Put(t.Context(), f.leaves[0]))
	must(t, s.Sync(t.Context()))
	must(t, s.Put(t.Context(), f.leaves[1]))
	must(t, g.Discard())
	for _, b := range f.leaves {
		wantErr(t, s, b, dray.ErrNotFound)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	g, filled := f.grow(t, s)
	if n := f.finish(t, s, g); n != 4 || filled != 0 {
		t.Errorf("%d filled, %d fetched", filled, n)
	}
}

func TestGrowTwiceAtOnce(t *testing.T) {
	s := openStore(t, Config{})
	f := makeLeaves(filepath.Join(t.TempDir(), "f"), 1, 4, 1000)
	f.grow(t, s)
	if _, err := s.Grow(t.Context(), f.path, 4000); err == nil {
		t.Error("the same file grows twice")
	}
}

// A leaf that goes to several places, in one file and in two, is written to all by one Put.
func TestLeafInManyPlaces(t *testing.T) {
	s := openStore(t, Config{})
	dir := t.TempDir()
	zero, err := dray.Hashed(storetest.Block(1, 1).CID().Prefix(), make([]byte, 1000))
	must(t, err)
	var files []*testFile
	var gs []*Growing
	for _, name := range []string{"a", "b"} {
		f := &testFile{path: filepath.Join(dir, name), data: make([]byte, 30_000)}
		for range 30 {
			f.leaves = append(f.leaves, zero)
		}
		files = append(files, f)
		g, _ := f.grow(t, s)
		gs = append(gs, g)
	}
	must(t, s.Put(t.Context(), zero))
	for i, g := range gs {
		if g.Missing() != 0 {
			t.Errorf("%d leaves missing", g.Missing())
		}
		files[i].finish(t, s, g)
	}
	if st := verifyStore(t, s, true); st.Blocks != 60 || st.Problems != 0 {
		t.Errorf("%+v, want 60 places", st)
	}
	must(t, s.Forget(t.Context(), files[0].path))
	wantLeaf(t, s, zero)
	must(t, s.Forget(t.Context(), files[1].path))
	wantErr(t, s, zero, dray.ErrNotFound)
}

func TestAdopt(t *testing.T) {
	s := openStore(t, Config{})
	dir := t.TempDir()
	have := writeFile(t, filepath.Join(dir, "have"), 1, 8, 50_000)
	have.reference(t, s)
	f := makeLeaves(filepath.Join(dir, "f"), 1, 16, 50_000) // its first half is the same
	must(t, s.Put(t.Context(), f.leaves[8], f.leaves[9]))
	overwrite(t, have.path, 3*50_000)
	g, _ := f.grow(t, s)
	n, err := g.Adopt(t.Context())
	if n != 9 || err != nil {
		t.Errorf("Adopt = %d, %v; want 9: seven from the changed file and two from segments", n, err)
	}
	if n := f.finish(t, s, g); n != 7 {
		t.Errorf("%d leaves were fetched, want 7", n)
	}
}

// framedBlock wraps content as a leaf with four bytes before it and two after.
func framedBlock(t *testing.T, content []byte) dray.Block {
	t.Helper()
	head, tail, _ := frame(cid.Undef, int64(len(content)))
	data := append(append(head, content...), tail...)
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: 32}, data)
	must(t, err)
	return b
}

func frame(_ cid.Cid, size int64) (head, tail []byte, err error) {
	return binary.BigEndian.AppendUint32(nil, uint32(size)), []byte{0xee, 0xff}, nil
}

func split(_ cid.Cid, block []byte) (head, content, tail []byte, err error) {
	if len(block) < 6 || int(binary.BigEndian.Uint32(block)) != len(block)-6 {
		return nil, nil, nil, errors.New("not framed")
	}
	return block[:4], block[4 : len(block)-2], block[len(block)-2:], nil
}

func TestFramedLeaves(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Dir: filepath.Join(dir, "home"), Split: split, Frame: frame}
	s := openStore(t, cfg)
	content := makeLeaves("", 1, 10, 70_000)
	var blocks []dray.Block
	for _, b := range content.leaves {
		blocks = append(blocks, framedBlock(t, b.Data()))
	}
	grow := func(path string) *Growing {
		g, err := s.Grow(t.Context(), path, int64(len(content.data)))
		must(t, err)
		for i, b := range blocks {
			_, err := g.Expect(b.CID(), content.offset(i), 70_000)
			must(t, err)
		}
		return g
	}
	path := filepath.Join(dir, "f")
	g := grow(path)
	must(t, s.Put(t.Context(), blocks[:6]...))
	must(t, g.Close())
	e := s.begin() // lose what the index knows of the part file, as after a crash before the first sync
	must(t, e.finish())
	must(t, s.Close())
	must(t, os.RemoveAll(cfg.Dir))

	s = openStore(t, cfg)
	g = grow(path)
	if n, _, err := g.Recover(t.Context()); n != 6 || err != nil {
		t.Errorf("Recover = %d, %v; want 6", n, err)
	}
	must(t, s.Put(t.Context(), blocks[6:]...))
	must(t, g.Finish(t.Context()))
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, content.data) {
		t.Error("the file is not the content")
	}
	for _, b := range blocks {
		wantLeaf(t, s, b)
	}
	g = grow(filepath.Join(dir, "copy"))
	if n, err := g.Adopt(t.Context()); n != 10 || err != nil {
		t.Errorf("Adopt = %d, %v", n, err)
	}
	must(t, g.Finish(t.Context()))
	must(t, os.Remove(path))
	for _, b := range blocks {
		wantLeaf(t, s, b)
	}
	if st := verifyStore(t, s, true); st.Problems != 1 {
		t.Errorf("%+v, want the removed file as the only problem", st)
	}
}

func TestGrowTooBigForDisk(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Config{})
	_, err := s.Grow(t.Context(), filepath.Join(dir, "f"), 1<<60)
	if !errors.Is(err, dray.ErrNoSpace) {
		t.Errorf("Grow of an exbibyte: %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// Expecting a hundred thousand leaves takes little memory.
func TestExpectMemory(t *testing.T) {
	const n, size = 100_000, 1000
	s := openStore(t, Config{})
	g, err := s.Grow(t.Context(), filepath.Join(t.TempDir(), "f"), n*size)
	must(t, err)
	var digest [32]byte
	prefix := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256}
	before := heap()
	for i := range n {
		binary.LittleEndian.PutUint64(digest[:], uint64(i)*0x9e3779b97f4a7c15)
		c, err := dray.CIDFromDigest(prefix, digest[:])
		must(t, err)
		_, err = g.Expect(c, int64(i)*size, size)
		must(t, err)
	}
	if got := heap() - before; got > 160*n {
		t.Errorf("%d bytes for each expected leaf, want at most 160", got/n)
	} else {
		t.Logf("%d bytes for each expected leaf", got/n)
	}
	if g.Missing() != n {
		t.Errorf("%d leaves missing", g.Missing())
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestRoots(t *testing.T) {
	home := t.TempDir()
	s := openStore(t, Config{Dir: home})
	now := time.Now().UTC().Round(0)
	a := Root{CID: storetest.Block(1, 1).CID(), Path: "x", Size: 5, Leaves: 1, Profile: "native", Added: now, Files: []string{"x"}}
	b := Root{CID: cid.NewCidV0(storetest.Block(2, 1).CID().Hash()), Size: 6, Added: now.Add(-time.Hour)}
	must(t, s.SetRoot(t.Context(), a))
	must(t, s.SetRoot(t.Context(), b))
	must(t, s.Close())
	s = openStore(t, Config{Dir: home})
	got, err := s.Roots(t.Context())
	must(t, err)
	if len(got) != 2 || got[0].CID != b.CID || got[1].CID != a.CID || got[1].Files[0] != "x" || !got[1].Added.Equal(now) {
		t.Errorf("Roots = %+v", got)
	}
	must(t, s.DeleteRoot(t.Context(), a.CID))
	if _, err := s.Root(t.Context(), a.CID); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Root after DeleteRoot: %v", err)
	}
	if r, err := s.Root(t.Context(), b.CID); err != nil || r.Size != 6 {
		t.Errorf("Root = %+v, %v", r, err)
	}
}
