package disk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"

	"github.com/ipfs/go-cid"
)

const benchSize = 1 << 30

// benchBlocks makes n distinct blocks of size bytes without a copy of the bytes for each: they share one buffer, in which
// their first bytes are unlike, and their CIDs are made up, which only Put's caller could tell.
func benchBlocks(b *testing.B, n, size int) []dray.Block {
	b.Helper()
	data := storetest.Block(1, size+n).Data()
	blocks := make([]dray.Block, n)
	for i := range blocks {
		var digest [32]byte
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}).Read(digest[:])
		c, err := dray.CIDFromDigest(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12}, digest[:])
		if err == nil {
			blocks[i], err = dray.SealBlock(c, digest[:], data[i:i+size])
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return blocks
}

// BenchmarkGrow writes a file of 1 GiB leaf by leaf, up to Finish.
func BenchmarkGrow(b *testing.B) {
	for _, size := range []int{256 << 10, 1 << 20} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%dKiB/%d", size>>10, workers), func(b *testing.B) {
				n := benchSize / size
				blocks := benchBlocks(b, n, size)
				dir := b.TempDir()
				s, err := Open(Config{Dir: filepath.Join(dir, "home")})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				b.SetBytes(benchSize)
				b.ReportAllocs()
				for b.Loop() {
					g, err := s.Grow(b.Context(), filepath.Join(dir, "f"), benchSize)
					for i, blk := range blocks {
						if err == nil {
							_, err = g.Expect(blk.CID(), int64(i)*int64(size), int64(size))
						}
					}
					if err != nil {
						b.Fatal(err)
					}
					var next atomic.Int64
					var wg sync.WaitGroup
					for range workers {
						wg.Go(func() {
							for i := next.Add(1) - 1; int(i) < n; i = next.Add(1) - 1 {
								if err := s.Put(b.Context(), blocks[i]); err != nil {
									b.Error(err)
								}
							}
						})
					}
					wg.Wait()
					if err := g.Finish(b.Context()); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := s.Forget(b.Context(), filepath.Join(dir, "f")); err != nil {
						b.Fatal(err)
					}
					os.Remove(filepath.Join(dir, "f"))
					b.StartTimer()
				}
			})
		}
	}
}

// BenchmarkPlainWrite is the same without a store: the same bytes to a file, once synced at the end and once not.
func BenchmarkPlainWrite(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%v", sync), func(b *testing.B) {
			data := storetest.Block(1, 256<<10).Data()
			name := filepath.Join(b.TempDir(), "f")
			b.SetBytes(benchSize)
			for b.Loop() {
				f, err := os.Create(name)
				if err != nil {
					b.Fatal(err)
				}
				for off := int64(0); off < benchSize; off += int64(len(data)) {
					if _, err := f.WriteAt(data, off); err != nil {
						b.Fatal(err)
					}
				}
				if sync {
					if err := f.Sync(); err != nil {
						b.Fatal(err)
					}
				}
				f.Close()
				b.StopTimer()
				os.Remove(name)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkGetRaw reads leaves of a referenced file, against BenchmarkPlainRead.
func BenchmarkGetRaw(b *testing.B) {
	const size, n = 256 << 10, 256
	dir := b.TempDir()
	s, err := Open(Config{Dir: filepath.Join(dir, "home")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	blocks := benchBlocks(b, n, size)
	g, err := s.Grow(b.Context(), filepath.Join(dir, "f"), n*size)
	for i, blk := range blocks {
		if err == nil {
			_, err = g.Expect(blk.CID(), int64(i*size), size)
		}
	}
	if err == nil {
		err = s.Put(b.Context(), blocks...)
	}
	if err == nil {
		err = g.Finish(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, size)
	b.SetBytes(size)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := s.GetRaw(b.Context(), blocks[i%n].CID(), buf); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkPlainRead(b *testing.B) {
	const size, n = 256 << 10, 256
	name := filepath.Join(b.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, size*n), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, size)
	b.SetBytes(size)
	i := 0
	for b.Loop() {
		if _, err := f.ReadAt(buf, int64(i%n)*size); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkPutSmall writes blocks that go to the index.
func BenchmarkPutSmall(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const n = 4096
	blocks := benchBlocks(b, n, 1000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i > 0 && i%n == 0 {
			b.StopTimer()
			for _, blk := range blocks {
				if err := s.Delete(b.Context(), blk.CID()); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
		}
		if err := s.Put(b.Context(), blocks[i%n]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkSweep drops 20,000 blocks of 8 KiB while somebody reads others, and reports how fast that is and how long a read
// took at most.
func BenchmarkSweep(b *testing.B) {
	const n = 20_000
	var took time.Duration
	var swept float64
	for b.Loop() {
		b.StopTimer()
		s, err := Open(Config{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		keep := make(Marks)
		var read []cid.Cid
		for i := range n + 100 {
			block := storetest.Block(uint64(i), 8<<10)
			if err := s.Put(b.Context(), block); err != nil {
				b.Fatal(err)
			}
			if i >= n {
				keep.Add(block.CID())
				read = append(read, block.CID())
			}
		}
		c, err := s.Collect(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		var wg sync.WaitGroup
		done := make(chan struct{})
		worst := time.Duration(0)
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				began := time.Now()
				if _, err := s.GetRaw(b.Context(), read[i%len(read)], nil); err != nil {
					b.Error(err)
				}
				worst = max(worst, time.Since(began))
			}
		})
		began := time.Now()
		b.StartTimer()
		freed, err := c.Sweep(b.Context(), SweepConfig{Keep: keep})
		b.StopTimer()
		took += time.Since(began)
		swept += n
		close(done)
		wg.Wait()
		if err != nil || freed.Blocks != n {
			b.Fatal(freed, err)
		}
		c.Close()
		s.Close()
		b.ReportMetric(float64(worst)/float64(time.Millisecond), "ms-worst-read")
		b.ReportMetric(swept/took.Seconds(), "blocks/s")
		b.StartTimer()
	}
}
