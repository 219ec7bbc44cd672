package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What stands at the end of a segment when the store is opened, after some whole records that the index does not know.
func TestSegmentTail(t *testing.T) {
	tail := storetest.Block(99, 5000)
	record := append(appendHeader(nil, string(tail.CID().Hash()), tail.Data(), 0), tail.Data()...)
	flipped := func(at int) []byte {
		b := append([]byte(nil), record...)
		b[at] ^= 1
		return b
	}
	for _, tt := range []struct {
		name  string
		tail  []byte
		found bool
	}{
		{"Nothing", nil, false},
		{"Whole", record, true},
		{"HalfAHeader", record[:headerSize/2], false},
		{"HeaderOnly", record[:headerSize+34], false},
		{"HalfABlock", record[:3000], false},
		{"MissingOneByte", record[:len(record)-1], false},
		{"BadMagic", flipped(0), false},
		{"BadLength", flipped(9), false},
		{"BadHash", flipped(headerSize + 5), false},
		{"BadBlock", flipped(4000), false},
		{"Zeros", make([]byte, 4096), false},
		{"WholeThenGarbage", append(append([]byte(nil), record...), flipped(0)...), true},
		{"TornThenWhole", append(flipped(4000), record...), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The index is that of an empty store; the segment was written after it.
			fs, dir := newLossyFS(), t.TempDir()
			blocks := []dray.Block{storetest.Block(1, 3000), storetest.Block(2, 4000)}
			var data []byte
			for _, b := range blocks {
				data = append(appendHeader(data, string(b.CID().Hash()), b.Data(), 0), b.Data()...)
			}
			fs.writeUser(filepath.Join(dir, "segments", "0000000000000001.seg"), append(data, tt.tail...), true)
			cfg := Config{Dir: dir, FS: fs, IndexFS: vfs.NewMem(), SmallBlock: 100}
			after := storetest.Block(3, 2000)
			for range 2 {
				s := openStore(t, cfg)
				for _, b := range blocks {
					wantLeaf(t, s, b)
				}
				if tt.found {
					wantLeaf(t, s, tail)
				} else {
					wantErr(t, s, tail, dray.ErrNotFound)
				}
				must(t, s.Put(t.Context(), after))
				wantLeaf(t, s, after)
				if st := verifyStore(t, s, true); st.Problems != 0 {
					t.Errorf("%+v", st)
				}
				must(t, s.Close())
			}
		})
	}
}

// A block that was deleted can be put again, wherever it was and wherever it comes to lie.
func TestDeleteThenPut(t *testing.T) {
	for _, size := range []int{50, 30_000} {
		for _, synced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/%v", size, synced), func(t *testing.T) {
				cfg := Config{Dir: t.TempDir(), SegmentSize: 40_000, SyncInterval: time.Hour}
				s := openStore(t, cfg)
				b := storetest.Block(1, size)
				for range 5 {
					must(t, s.Put(t.Context(), b))
					if synced {
						must(t, s.Sync(t.Context()))
					}
					wantLeaf(t, s, b)
					must(t, s.Delete(t.Context(), b.CID()))
					wantErr(t, s, b, dray.ErrNotFound)
					if synced {
						must(t, s.Sync(t.Context()))
					}
				}
				must(t, s.Close())
				s = openStore(t, cfg)
				wantErr(t, s, b, dray.ErrNotFound)
				must(t, s.Put(t.Context(), b))
				must(t, s.Close())
				s = openStore(t, cfg)
				wantLeaf(t, s, b)
				if st := verifyStore(t, s, true); st.Problems != 0 || st.Blocks != 1 {
					t.Errorf("%+v", st)
				}
			})
		}
	}
}

// The power goes at every operation of a commit that reclaims segments: what lives is never lost, and what is deleted
// stays so.
func TestReclaimInterrupted(t *testing.T) {
	for cut := 1; ; cut++ {
		p := &power{dir: t.TempDir(), fs: newLossyFS(), index: vfs.NewCrashableMem()}
		p.rng = rand.New(rand.NewPCG(uint64(cut), 3))
		open := func() *Store {
			s, err := Open(Config{
				Dir: filepath.Join(p.dir, "home"), FS: p.fs, IndexFS: p.index,
				SmallBlock: 100, SegmentSize: 20_000, SyncInterval: time.Hour,
			})
			must(t, err)
			return s
		}
		s := open()
		var kept, deleted []dray.Block
		for i := range 24 {
			b := storetest.Block(uint64(i), 4500) // four to a segment
			must(t, s.Put(t.Context(), b))
			if i%4 == 1 && i < 16 {
				kept = append(kept, b)
			} else {
				deleted = append(deleted, b)
			}
		}
		must(t, s.Sync(t.Context()))
		for _, b := range deleted {
			must(t, s.Delete(t.Context(), b.CID()))
		}
		must(t, s.syncIndex())
		p.fs.mu.Lock()
		p.fs.ops = 0
		p.fs.watch = func(n int, _ string) error {
			if n == cut {
				p.cutPower(uint64(cut))
			}
			if p.gone {
				return errPowerOff
			}
			return nil
		}
		p.fs.mu.Unlock()
		for range 8 { // each reclaims one segment
			if s.Sync(t.Context()) != nil {
				break
			}
		}
		s.Close()
		if !p.isGone() {
			if cut < 20 {
				t.Errorf("only %d operations: nothing was reclaimed", cut)
			}
			return
		}
		p.fs, p.index = p.fsAfter, p.diskAfter
		s = open()
		for _, b := range kept {
			wantLeaf(t, s, b)
		}
		for _, b := range deleted {
			wantErr(t, s, b, dray.ErrNotFound)
		}
		if st := verifyStore(t, s, true); st.Problems != 0 {
			t.Errorf("%+v", st)
		}
		must(t, s.Close())
		if t.Failed() {
			t.Fatalf("power cut at operation %d", cut)
		}
	}
}

// Verification finds a segment that is cut short or missing, also without reading it all, and repair drops what was in it
// and nothing else.
func TestVerifyDamagedSegment(t *testing.T) {
	for _, missing := range []bool{false, true} {
		for _, deep := range []bool{false, true} {
			t.Run(fmt.Sprintf("missing=%v/deep=%v", missing, deep), func(t *testing.T) {
				s := openStore(t, Config{SegmentSize: 100_000, OpenFiles: 1})
				var blocks []dray.Block
				for i := range 6 { // three to a segment
					blocks = append(blocks, storetest.Block(uint64(i), 30_000))
				}
				must(t, s.Put(t.Context(), blocks...))
				must(t, s.Sync(t.Context()))
				s.files.remove(1 | segmentBit)
				bad := map[int]bool{1: true, 2: true}
				if missing {
					must(t, os.Remove(s.segmentPath(1)))
					bad[0] = true
				} else {
					must(t, os.Truncate(s.segmentPath(1), 40_000))
				}
				found := problems(t, s, VerifyConfig{Deep: deep})
				if len(found) != len(bad) {
					t.Errorf("%v, want %d problems", found, len(bad))
				}
				for _, p := range found {
					if p.Path != s.segmentPath(1) || p.Size != 30_000 || !errors.Is(p.Err, dray.ErrCorrupt) {
						t.Errorf("problem: %v", p)
					}
				}
				problems(t, s, VerifyConfig{Deep: deep, Repair: true})
				if found := problems(t, s, VerifyConfig{Deep: true}); len(found) != 0 {
					t.Errorf("after repair: %v", found)
				}
				for i, b := range blocks {
					if bad[i] {
						wantErr(t, s, b, dray.ErrNotFound)
						must(t, s.Put(t.Context(), b))
					}
					wantLeaf(t, s, b)
				}
			})
		}
	}
}

// A small block whose bytes in the index are not its own is found by deep verification and by Get.
func TestVerifyDamagedIndex(t *testing.T) {
	s := openStore(t, Config{})
	good, bad := storetest.Block(1, 500), storetest.Block(2, 500)
	must(t, s.Put(t.Context(), good))
	e := s.begin()
	must(t, e.add(string(bad.CID().Hash()), &place{kind: inIndex, data: good.Data()}))
	must(t, e.finish())
	found := problems(t, s, VerifyConfig{Deep: true})
	if len(found) != 1 || !found[0].CID.Equals(bad.CID()) || found[0].Path != "" || !errors.Is(found[0].Err, dray.ErrCorrupt) {
		t.Errorf("%v, want one corrupt block", found)
	}
	if _, err := s.Get(t.Context(), bad.CID()); !errors.Is(err, dray.ErrCorrupt) {
		t.Errorf("Get: %v", err)
	}
	wantErr(t, s, bad, dray.ErrNotFound) // forgotten
	must(t, s.Put(t.Context(), bad))
	wantLeaf(t, s, bad)
	wantLeaf(t, s, good)
}
