package disk

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"dray"
	"dray/store/storetest"
)

func benchStore(b *testing.B) (*Store, string) {
	b.Helper()
	dir := b.TempDir()
	s, err := Open(Config{Dir: filepath.Join(dir, "home")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s, dir
}

// BenchmarkPutSegment writes blocks that go to segments, deleting them in between so that their space is used again.
func BenchmarkPutSegment(b *testing.B) {
	for _, size := range []int{256 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s, _ := benchStore(b)
			blocks := benchBlocks(b, (256<<20)/size, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i > 0 && i%len(blocks) == 0 {
					b.StopTimer()
					for _, blk := range blocks {
						if err := s.Delete(b.Context(), blk.CID()); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
				}
				if err := s.Put(b.Context(), blocks[i%len(blocks)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStat asks for blocks of each kind, and for one that is not there.
func BenchmarkStat(b *testing.B) {
	s, dir := benchStore(b)
	small, large, leaf := storetest.Block(1, 1000), storetest.Block(2, 100_000), storetest.Block(3, 100_000)
	g, err := s.Grow(b.Context(), filepath.Join(dir, "f"), 100_000)
	if err == nil {
		_, err = g.Expect(leaf.CID(), 0, 100_000)
	}
	if err == nil {
		err = s.Put(b.Context(), small, large, leaf)
	}
	if err == nil {
		err = g.Finish(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct {
		name  string
		block dray.Block
	}{{"Small", small}, {"Segment", large}, {"File", leaf}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Stat(b.Context(), bb.block.CID()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	absent := storetest.Block(9, 9).CID()
	b.Run("Absent", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Stat(b.Context(), absent); err == nil {
				b.Fatal("it is there")
			}
		}
	})
}

// BenchmarkTinyFiles fetches files of twenty bytes, each through Grow, Expect, Put and Finish, by some goroutines.
func BenchmarkTinyFiles(b *testing.B) {
	for _, workers := range []int{1, 4, 16} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			s, dir := benchStore(b)
			b.ReportAllocs()
			var next atomic.Int64
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						leaf := storetest.Block(uint64(i), 20)
						g, err := s.Grow(b.Context(), filepath.Join(dir, fmt.Sprint(i)), 20)
						if err == nil {
							_, err = g.Expect(leaf.CID(), 0, 20)
						}
						if err == nil {
							err = s.Put(b.Context(), leaf)
						}
						if err == nil {
							err = g.Finish(b.Context())
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
