package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/store"
	"dray/transport"
	"dray/unixfs"
)

// shape is a directory of files, by number and size.
type shape struct {
	name  string
	chunk int64
	files [][2]int // number, size
}

var shapes = []shape{
	{"tiny and one large", 1 << 20, [][2]int{{1000, 64}, {1, 5 << 20}, {300, 100}}},
	{"one large", 1 << 20, [][2]int{{1, 24 << 20}}},
	{"large first", 1 << 20, [][2]int{{1, 12 << 20}, {500, 100}}},
	{"uneven leaves", 256 << 10, [][2]int{{20, 300_000}, {20, 70_000}, {200, 10}}},
	{"small leaves", 4 << 10, [][2]int{{1, 4 << 20}}},
	{"one byte", 1 << 20, [][2]int{{1, 1}}},
}

// pausing is a store that now and then takes its time, as disks and busy machines do.
type pausing struct {
	dray.Store
	mu  sync.Mutex
	rng *rand.Rand
}

// pause waits; only a synctest bubble calls it.
func (p *pausing) pause() {
	p.mu.Lock()
	d := time.Duration(p.rng.IntN(20)) * time.Microsecond
	switch x := p.rng.IntN(2000); {
	case x == 0:
		d = 50 * time.Millisecond
	case x < 20:
		d = 2 * time.Millisecond
	}
	p.mu.Unlock()
	time.Sleep(d)
}

func (p *pausing) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	p.pause()
	return p.Store.Get(ctx, c)
}

func (p *pausing) Stat(ctx context.Context, c cid.Cid) (int64, error) {
	p.pause()
	return p.Store.Stat(ctx, c)
}

func (p *pausing) Put(ctx context.Context, blocks ...dray.Block) error {
	p.pause()
	return p.Store.Put(ctx, blocks...)
}

// TestNoOutliers fetches several shapes over links of several lengths, again and again in virtual time: no run takes much
// longer than the others of its kind.
func TestNoOutliers(t *testing.T) {
	runs := 6
	if s := os.Getenv("SHAPE_RUNS"); s != "" {
		fmt.Sscan(s, &runs)
	}
	for _, sh := range shapes {
		dir := filepath.Join(t.TempDir(), "src")
		rng := rand.New(rand.NewPCG(1, 2))
		for i, f := range sh.files {
			for k := range f[0] {
				data := make([]byte, f[1])
				for at := 0; at+8 <= len(data); at += 8 {
					binary.LittleEndian.PutUint64(data[at:], rng.Uint64())
				}
				path := filepath.Join(dir, fmt.Sprintf("%d-%d", i, k))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, latency := range []time.Duration{200 * time.Microsecond, 20 * time.Millisecond} {
			for _, pauses := range []bool{false, true} {
				t.Run(fmt.Sprint(sh.name, " ", latency, " pauses ", pauses), func(t *testing.T) {
					var took []time.Duration
					for i := range runs {
						took = append(took, shaped(t, sh, dir, latency, pauses, uint64(i+1)))
					}
					slices.Sort(took)
					median, most := took[len(took)/2], took[len(took)-1]
					t.Logf("median %v, at most %v", median, most)
					if most > 3*median && most > median+time.Second/2 {
						t.Errorf("one of %d runs took %v, half of them at most %v", runs, most, median)
					}
				})
			}
		}
	}
}

func shaped(t *testing.T, sh shape, dir string, latency time.Duration, pauses bool, seed uint64) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		mem := transport.NewMemory(transport.MemoryConfig{Latency: latency, Bandwidth: gigabit})
		var nodes []*Node
		var nets []transport.Network
		for range 2 {
			net := mem.NewHost()
			var st dray.Store = store.NewMem(0)
			if pauses {
				st = &pausing{Store: st, rng: rand.New(rand.NewPCG(seed, 1))}
			}
			n, err := New(Config{Store: st, Network: net, Engine: exchange.Config{Seed: seed}})
			if err != nil {
				t.Fatal(err)
			}
			nodes, nets = append(nodes, n), append(nets, net)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		p := unixfs.V1()
		p.ChunkSize = sh.chunk
		added, err := nodes[0].Add(ctx, dir, AddConfig{Profile: p, Copy: true})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		pr, err := nodes[1].Fetch(ctx, FetchConfig{Root: added.Root, Peers: []transport.Peer{peerOf(nodes[0])}})
		if err != nil {
			t.Fatalf("%+v, %v", pr, err)
		}
		took = time.Since(start)
		wantRest(t, "the getter", nodes[1])
		wantRest(t, "the seed", nodes[0])
		for i, n := range nodes {
			n.Close()
			nets[i].Close()
		}
	})
	return took
}
