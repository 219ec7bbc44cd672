package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// power is a store whose power goes, and what it has promised. Data files and index are cut at the same moment.
type power struct {
	dir   string
	fs    *lossyFS
	index *vfs.MemFS
	rng   *rand.Rand // of the work
	cutAt int        // the data operation at which the power goes

	// What is left, once the power has gone. Guarded by fs.mu.
	gone      bool
	fsAfter   *lossyFS
	diskAfter *vfs.MemFS

	blocks map[uint64]certainty
	refs   map[int]certainty
	synced map[int]bool // whether the user's file was synced before it was referenced
	leaves map[int]*[powerLeaves]certainty
	done   map[int]bool
	grown  int
}

const powerLeaves, powerLeafSize = 12, 3000

func powerSize(id uint64) int { return []int{40, 900, 2500, 6000}[id%4] }

func (p *power) file(kind string, n int) *testFile {
	seed := uint64(5000 + n)
	if kind == "grown" {
		seed += 1 << 20
	}
	return makeLeaves(filepath.Join(p.dir, fmt.Sprintf("%s-%d", kind, n)), seed, powerLeaves, powerLeafSize)
}

func (p *power) open() (*Store, error) {
	return Open(Config{
		Dir: filepath.Join(p.dir, "home"), FS: p.fs, IndexFS: p.index,
		SmallBlock: 1000, SegmentSize: 20_000, SyncBytes: 30_000, SyncInterval: time.Millisecond,
	})
}

// cutPower takes the picture of both file systems; fs.mu is held, so that nothing happens in between.
func (p *power) cutPower(seed uint64) {
	if p.gone {
		return
	}
	p.gone = true
	rng := rand.New(rand.NewPCG(seed, 5))
	p.diskAfter = p.index.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	p.fsAfter = p.fs.crash(rng)
}

func (p *power) isGone() bool {
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	return p.gone
}

// TestPowerLossDuringAnything cuts the power at random data operations of random work: among writes, flushes, renames
// and commits that the committer does at the same time. Names, lengths and writes that were not synced are lost, kept
// or torn at random.
func TestPowerLossDuringAnything(t *testing.T) {
	for worker := range 4 {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(8) {
				testPowerLoss(t, seed<<8|uint64(worker))
				if t.Failed() {
					t.Fatalf("seed %d", seed<<8|uint64(worker))
				}
			}
		})
	}
}

func testPowerLoss(t *testing.T, seed uint64) {
	p := &power{
		dir: t.TempDir(), fs: newLossyFS(), index: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 1)),
		blocks: make(map[uint64]certainty), refs: make(map[int]certainty), synced: make(map[int]bool),
		leaves: make(map[int]*[powerLeaves]certainty), done: make(map[int]bool),
	}
	for round := range 8 {
		p.gone = false
		p.cutAt = 1 + p.rng.IntN(500)
		p.fs.watch = func(op int, _ string) error {
			if op == p.cutAt {
				p.cutPower(seed*100 + uint64(round))
			}
			if p.gone {
				return errPowerOff
			}
			return nil
		}
		p.work(t, round)
		p.fs, p.index = p.fsAfter, p.diskAfter
		s, err := p.open()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		p.check(t, s)
		must(t, s.Close())
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
		p.fs.ops = 0
	}
}

// work works until the power goes.
func (p *power) work(t *testing.T, round int) {
	s, err := p.open()
	var g *Growing
	if err == nil {
		for n := 0; err == nil && n < 2000 && !p.isGone(); n++ {
			g, err = p.step(t, s, g, round)
		}
		if err == nil {
			p.fs.mu.Lock()
			p.cutPower(uint64(round))
			p.fs.mu.Unlock()
		}
		s.Close() // as well as it can; nothing reaches the disk any more
	}
	if !p.isGone() {
		t.Fatalf("an error while the power was on: %v", err)
	}
}

// note runs f, and does so with what the store promises only if the power is still on afterwards.
func (p *power) note(err error, f func()) error {
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	if err == nil && !p.gone {
		f()
	}
	return err
}

func (p *power) step(t *testing.T, s *Store, g *Growing, round int) (*Growing, error) {
	ctx := t.Context()
	id := uint64(round)<<32 | uint64(p.rng.IntN(60))
	b := storetest.Block(id, powerSize(id))
	switch n := p.rng.IntN(100); {
	case n < 35:
		was := p.blocks[id]
		if was != durable {
			was = written
			p.blocks[id] = unknown // while it may be there or not
		}
		return g, p.note(s.Put(ctx, b), func() { p.blocks[id] = was })
	case n < 45:
		p.blocks[id] = deleting
		return g, s.Delete(ctx, b.CID())
	case n < 48:
		return g, p.reference(ctx, s, round*100+p.rng.IntN(100))
	case n < 55:
		return g, p.note(s.Sync(ctx), p.promised)
	}
	return p.grow(ctx, s, g)
}

// promised is called when Sync has returned.
func (p *power) promised() {
	for id, c := range p.blocks {
		switch c {
		case written:
			p.blocks[id] = durable
		case deleting:
			p.blocks[id] = deleted
		}
	}
	for n := range p.refs {
		p.refs[n] = durable
	}
	for _, leaves := range p.leaves {
		for i, c := range leaves {
			if c == written {
				leaves[i] = durable
			}
		}
	}
}

func (p *power) reference(ctx context.Context, s *Store, n int) error {
	if p.refs[n] != unknown {
		return nil
	}
	f := p.file("user", n)
	p.synced[n] = p.rng.IntN(2) == 0
	p.fs.writeUser(f.path, f.data, p.synced[n])
	r, err := s.Reference(ctx, f.path)
	if err != nil {
		return err
	}
	for i, b := range f.leaves {
		if err := r.Index(b.CID(), nil, nil, f.offset(i), powerLeafSize); err != nil {
			return err
		}
	}
	return p.note(r.Commit(ctx), func() { p.refs[n] = written })
}

func (p *power) grow(ctx context.Context, s *Store, g *Growing) (*Growing, error) {
	f := p.file("grown", p.grown)
	if g == nil {
		g, err := s.Grow(ctx, f.path, int64(len(f.data)))
		for i, b := range f.leaves {
			if err == nil {
				_, err = g.Expect(b.CID(), f.offset(i), powerLeafSize)
			}
		}
		if err == nil {
			_, _, err = g.Recover(ctx)
		}
		p.leaves[p.grown] = new([powerLeaves]certainty)
		return g, err
	}
	if g.Missing() == 0 {
		return nil, p.note(g.Finish(ctx), func() {
			p.done[p.grown] = true
			p.grown++
		})
	}
	i := p.rng.IntN(powerLeaves)
	return g, p.note(s.Put(ctx, f.leaves[i]), func() {
		p.leaves[p.grown][i] = max(p.leaves[p.grown][i], written)
	})
}

// check looks at what is left.
func (p *power) check(t *testing.T, s *Store) {
	t.Helper()
	_, err := s.Verify(t.Context(), VerifyConfig{Deep: true, Report: func(problem Problem) {
		for n, c := range p.refs { // a file of the user's that nobody synced is his loss, and is to be reported
			if problem.Path == p.file("user", n).path && !p.synced[n] && c != durable {
				return
			}
		}
		if n := 0; problem.Path != "" {
			if _, err := fmt.Sscanf(filepath.Base(problem.Path), "user-%d", &n); err == nil && p.refs[n] == unknown && !p.synced[n] {
				return
			}
		}
		t.Errorf("deep verification: %v", problem)
	}})
	must(t, err)
	for id, c := range p.blocks {
		b := storetest.Block(id, powerSize(id))
		there := p.served(t, s, b)
		switch {
		case c == durable && !there:
			t.Errorf("block %d of %d bytes is lost", id, b.Size())
		case c == deleted && there:
			t.Errorf("block %d of %d bytes is back", id, b.Size())
		case there:
			p.blocks[id] = durable
		default:
			p.blocks[id] = deleted
		}
	}
	for n, c := range p.refs {
		if !p.allServed(t, s, p.file("user", n)) {
			if c == durable {
				t.Errorf("referenced file %d is lost", n)
			}
			delete(p.refs, n)
		} else {
			p.refs[n] = durable
		}
	}
	for n := range p.done {
		p.checkFinished(t, s, n)
	}
	if _, moved := p.fs.content(p.file("grown", p.grown).path); moved {
		p.checkFinished(t, s, p.grown)
		p.done[p.grown] = true
		p.grown++
	}
	p.resume(t, s)
}

func (p *power) served(t *testing.T, s *Store, b dray.Block) bool {
	t.Helper()
	got, err := s.GetRaw(t.Context(), b.CID(), nil)
	switch {
	case err == nil && !bytes.Equal(got, b.Data()):
		t.Errorf("wrong bytes for %v", b)
	case err != nil && !errors.Is(err, dray.ErrNotFound) && !errors.Is(err, dray.ErrChanged):
		t.Errorf("Get(%v): %v", b, err)
	}
	return err == nil
}

func (p *power) allServed(t *testing.T, s *Store, f *testFile) bool {
	t.Helper()
	all := true
	for _, b := range f.leaves {
		all = p.served(t, s, b) && all
	}
	return all
}

func (p *power) checkFinished(t *testing.T, s *Store, n int) {
	t.Helper()
	f := p.file("grown", n)
	if got, _ := p.fs.content(f.path); !bytes.Equal(got, f.data) {
		t.Errorf("finished file %d has %d bytes, and not the right ones", n, len(got))
	}
	if !p.allServed(t, s, f) {
		t.Errorf("finished file %d is not served", n)
	}
}

// resume checks that no durable leaf of the growing file would be fetched again.
func (p *power) resume(t *testing.T, s *Store) {
	t.Helper()
	f := p.file("grown", p.grown)
	g, err := s.Grow(t.Context(), f.path, int64(len(f.data)))
	must(t, err)
	for i, b := range f.leaves {
		filled, err := g.Expect(b.CID(), f.offset(i), powerLeafSize)
		must(t, err)
		if known := p.leaves[p.grown]; known != nil && known[i] == durable && !filled {
			t.Errorf("leaf %d of file %d was durable and is not filled", i, p.grown)
		}
	}
	_, _, err = g.Recover(t.Context())
	must(t, err)
	must(t, g.Close())
}

// A cut while many blocks are put by several goroutines leaves every one whose Put was before a Sync.
func TestPowerLossConcurrent(t *testing.T) {
	for seed := range uint64(20) {
		p := &power{dir: t.TempDir(), fs: newLossyFS(), index: vfs.NewCrashableMem()}
		s, err := p.open()
		must(t, err)
		rng := rand.New(rand.NewPCG(seed, 2))
		p.fs.mu.Lock()
		p.fs.ops, p.cutAt = 0, 1+rng.IntN(400)
		p.fs.watch = func(op int, _ string) error {
			if op == p.cutAt {
				p.cutPower(seed)
			}
			if p.gone {
				return errPowerOff
			}
			return nil
		}
		p.fs.mu.Unlock()
		var wg sync.WaitGroup
		kept := make([][]dray.Block, 4)
		for w := range kept {
			wg.Go(func() {
				var put []dray.Block
				for i := range 200 {
					b := storetest.Block(uint64(w*1000+i), powerSize(uint64(i)))
					if s.Put(t.Context(), b) != nil {
						return
					}
					put = append(put, b)
					if i%9 == 8 && p.note(s.Sync(t.Context()), func() { kept[w] = put[:len(put):len(put)] }) != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		p.fs.mu.Lock()
		p.cutPower(seed)
		p.fs.mu.Unlock()
		s.Close()
		p.fs, p.index = p.fsAfter, p.diskAfter
		s, err = p.open()
		must(t, err)
		if st := verifyStore(t, s, true); st.Problems != 0 {
			t.Errorf("seed %d: %+v", seed, st)
		}
		for _, blocks := range kept {
			for _, b := range blocks {
				wantLeaf(t, s, b)
			}
		}
		must(t, s.Close())
	}
}
