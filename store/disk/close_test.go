package disk

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"dray"
	"dray/store/storetest"
)

// Close while others put, get, sync, list, verify, reference and fetch: each call either works or says that the store is
// closed, Close returns without an error, and what was put is there.
func TestCloseUnderLoad(t *testing.T) {
	for seed := range uint64(12) {
		dir := t.TempDir()
		cfg := Config{Dir: filepath.Join(dir, "home"), SegmentSize: 100_000, SyncBytes: 50_000, OpenFiles: 2}
		s := openStore(t, cfg)
		f := writeFile(t, filepath.Join(dir, "user"), 50, 5, 10_000)
		grown := makeLeaves(filepath.Join(dir, "grown"), 51, 40, 10_000)
		g, _ := grown.grow(t, s)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var put []dray.Block
		started := make(chan struct{}, 16)
		repeat := func(call func(i int) error) {
			wg.Go(func() {
				for i := 0; ; i++ {
					err := call(i)
					if errors.Is(err, dray.ErrClosed) {
						return
					}
					if err != nil && !errors.Is(err, dray.ErrNotFound) {
						t.Errorf("seed %d: %v", seed, err)
						return
					}
					if i == 0 {
						started <- struct{}{}
					}
				}
			})
		}
		for w := range 2 {
			repeat(func(i int) error {
				b := storetest.Block(seed<<40|uint64(w)<<32|uint64(i), []int{100, 20_000}[i%2])
				err := s.Put(t.Context(), b)
				if err == nil {
					mu.Lock()
					put = append(put, b)
					mu.Unlock()
				}
				return err
			})
		}
		repeat(func(i int) error { return s.Put(t.Context(), grown.leaves[i%40]) })
		repeat(func(i int) error {
			_, err := s.GetRaw(t.Context(), grown.leaves[i*7%40].CID(), nil)
			return err
		})
		repeat(func(int) error { return s.Sync(t.Context()) })
		repeat(func(int) error {
			_, err := s.Verify(t.Context(), VerifyConfig{})
			return err
		})
		repeat(func(int) error {
			for _, err := range s.All(t.Context()) {
				if err != nil {
					return err
				}
			}
			return nil
		})
		repeat(func(int) error {
			r, err := s.Reference(t.Context(), f.path)
			if err != nil {
				return err
			}
			defer r.Close()
			for i, b := range f.leaves {
				if err := r.Index(b.CID(), nil, nil, f.offset(i), 10_000); err != nil {
					return err
				}
			}
			return r.Commit(t.Context())
		})
		repeat(func(i int) error { return g.Finish(t.Context()) })
		for range 4 + rand.New(rand.NewPCG(seed, 1)).IntN(4) {
			<-started
		}
		if err := s.Close(); err != nil {
			t.Errorf("seed %d: Close: %v", seed, err)
		}
		wg.Wait()
		s = openStore(t, cfg)
		for _, b := range put {
			wantLeaf(t, s, b)
		}
		if st := verifyStore(t, s, true); st.Problems != 0 {
			t.Errorf("seed %d: %+v", seed, st)
		}
		must(t, s.Close())
		for _, stack := range ourGoroutines() {
			t.Errorf("seed %d: left running:\n%s", seed, stack)
		}
	}
}

// ourGoroutines returns the stacks of goroutines that run a store's code, but for tests.
func ourGoroutines() (stacks []string) {
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "disk.(*Store)") || strings.Contains(stack, "pebble/v2.(*DB)") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}
