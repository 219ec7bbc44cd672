package digest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"dray"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	upstream "lukechampine.com/blake3"
)

// ways lists the ways of hashing sha2-256 that this machine has, as the number of jobs from which the lanes are used: alone
// always, through the lanes where it can.
func ways(t testing.TB) map[string]int {
	t.Helper()
	w := map[string]int{"alone": never}
	if kernelWorks {
		w["lanes"], w["few lanes"] = 4, 1
	} else {
		t.Log("this CPU has no AVX-512: lanes are not covered by this run")
	}
	return w
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// cidOf names data with the library that the network uses, not with ours.
func cidOf(t testing.TB, prefix cid.Prefix, data []byte) cid.Cid {
	t.Helper()
	c, err := prefix.Sum(data)
	if err != nil {
		t.Fatalf("%v.Sum: %v", prefix, err)
	}
	return c
}

var (
	raw256    = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}
	rawBlake3 = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.BLAKE3, MhLength: 32}
	dagPB0    = cid.Prefix{Version: 0, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: 32}
	short256  = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 20}
	raw512    = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_512, MhLength: 64}
	rawBlake2 = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.BLAKE2B_MIN + 31, MhLength: 32}
	long3     = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.BLAKE3, MhLength: 64}
)

// wantSum256 checks that each job carries the block that crypto/sha256 says.
func wantSum256(t *testing.T, why string, jobs []*Job) {
	t.Helper()
	for i, j := range jobs {
		want := sha256.Sum256(j.Data)
		if j.Err != nil {
			t.Fatalf("%s: job %d of %d bytes: %v", why, i, len(j.Data), j.Err)
		}
		if got := j.Block.CID().Hash()[2:]; !bytes.Equal(got, want[:]) {
			t.Fatalf("%s: job %d of %d bytes hashed to %x, want %x", why, i, len(j.Data), got, want)
		}
		if len(j.Data) > 0 && &j.Block.Data()[0] != &j.Data[0] {
			t.Fatalf("%s: job %d: the block is a copy of the data", why, i)
		}
	}
}

func TestEveryLengthInEveryLane(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	data := randomBytes(r, 400)
	for name, lanes := range ways(t) {
		for size := range 301 {
			jobs := make([]*Job, laneCount)
			for i := range jobs {
				// Other bytes and another alignment in each lane, the same length.
				jobs[i] = &Job{Prefix: raw256, Data: data[i : i+size]}
			}
			sumAll(jobs, lanes)
			wantSum256(t, fmt.Sprintf("%s, all of %d bytes", name, size), jobs)
		}
	}
}

func TestMixedLengths(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	data := randomBytes(r, 1<<18)
	for name, lanes := range ways(t) {
		for round := range 300 {
			jobs := make([]*Job, 1+r.IntN(100))
			for i := range jobs {
				limit := []int{65, 300, 20_000, len(data)}[r.IntN(4)]
				from := r.IntN(64)
				jobs[i] = &Job{Prefix: raw256, Data: data[from : from+r.IntN(limit-64)]}
			}
			sumAll(jobs, lanes)
			wantSum256(t, fmt.Sprintf("%s, round %d", name, round), jobs)
		}
	}
}

// One long job among short ones is finished alone, going on from where its lane was.
func TestLongJobLeavesTheLanes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for name, lanes := range ways(t) {
		for _, size := range []int{64 * 9, 64*9 + 1, 64*300 + 55, 64*300 + 56, 1 << 20} {
			for at := range 8 {
				jobs := make([]*Job, 8)
				for i := range jobs {
					n := 100 + i
					if i == at {
						n = size
					}
					jobs[i] = &Job{Prefix: raw256, Data: randomBytes(r, n)}
				}
				sumAll(jobs, lanes)
				wantSum256(t, fmt.Sprintf("%s, %d bytes at %d", name, size, at), jobs)
			}
		}
	}
}

func FuzzSum256(f *testing.F) {
	f.Add([]byte("abc"), uint64(7))
	f.Add(bytes.Repeat([]byte{0x80}, 300), uint64(99))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, seed))
		jobs := make([]*Job, 1+r.IntN(40))
		for i := range jobs {
			a, b := r.IntN(len(data)+1), r.IntN(len(data)+1)
			jobs[i] = &Job{Prefix: raw256, Data: data[min(a, b):max(a, b)]}
		}
		for name, lanes := range ways(t) {
			sumAll(jobs, lanes)
			wantSum256(t, name, jobs)
		}
	})
}

func TestBlake3(t *testing.T) {
	// From the test vectors of the BLAKE3 specification: input byte i is i mod 251.
	vectors := map[int]string{
		0:      "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
		1:      "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
		1024:   "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
		102400: "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
	}
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i % 251)
	}
	var b blake3
	for n, want := range vectors {
		if got := b.sum256(data[:n]); hex.EncodeToString(got[:]) != want {
			t.Errorf("%d bytes hash to %x, want %s", n, got, want)
		}
	}
	lengths := []int{len(data)}
	for n := range 70 {
		for d := -1; d <= 1; d++ {
			lengths = append(lengths, max(0, n*1024+d), n*groupSize+d+1, n*64+d+1)
		}
	}
	r := rand.New(rand.NewPCG(4, 4))
	for range 200 {
		lengths = append(lengths, r.IntN(len(data)))
	}
	for _, n := range lengths {
		if got, want := b.sum256(data[:n]), upstream.Sum256(data[:n]); got != want {
			t.Errorf("%d bytes hash to %x, the library says %x", n, got, want)
		}
	}
}

func TestPrefixes(t *testing.T) {
	data := []byte("the bytes of a block")
	for name, lanes := range ways(t) {
		for _, prefix := range []cid.Prefix{raw256, rawBlake3, dagPB0, short256, raw512, rawBlake2, long3} {
			want := cidOf(t, prefix, data)
			// Five times, so that the lanes are used where they apply.
			jobs := make([]*Job, 10)
			for i := range jobs {
				jobs[i] = &Job{Prefix: prefix, Data: data}
				if i%2 == 1 {
					jobs[i] = &Job{CID: want, Data: data}
				}
			}
			sumAll(jobs, lanes)
			for i, j := range jobs {
				if j.Err != nil || j.Block.CID() != want || !bytes.Equal(j.Block.Data(), data) {
					t.Errorf("%s, %v, job %d: %v, %v, want %v", name, prefix, i, j.Block, j.Err, want)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	data := []byte("right")
	good := cidOf(t, raw256, data)
	bad256, bad3 := cidOf(t, raw256, []byte("wrong")), cidOf(t, rawBlake3, []byte("wrong"))
	malformed := cid.NewCidV1(cid.Raw, mh.Multihash("\x12\x20too short"))
	rows := []struct {
		why  string
		job  Job
		want error
	}{
		{"other bytes, sha2-256", Job{CID: bad256, Data: data}, dray.ErrCorrupt},
		{"other bytes, blake3", Job{CID: bad3, Data: data}, dray.ErrCorrupt},
		{"a hash that is not allowed", Job{Prefix: cid.Prefix{Version: 1, MhType: mh.MD5, MhLength: 16}, Data: data}, dray.ErrBadCID},
		{"a digest that is too short", Job{Prefix: cid.Prefix{Version: 1, MhType: mh.SHA2_256, MhLength: 19}, Data: data}, dray.ErrBadCID},
		{"a digest that is too long", Job{Prefix: cid.Prefix{Version: 1, MhType: mh.SHA2_256, MhLength: 33}, Data: data}, dray.ErrBadCID},
		{"an unknown version", Job{Prefix: cid.Prefix{Version: 7, MhType: mh.SHA2_256, MhLength: 32}, Data: data}, dray.ErrBadCID},
		{"version 0 with blake3", Job{Prefix: cid.Prefix{Version: 0, MhType: mh.BLAKE3, MhLength: 32}, Data: data}, dray.ErrBadCID},
		{"neither CID nor prefix", Job{Data: data}, dray.ErrBadCID},
		{"a malformed CID", Job{CID: malformed, Data: data}, dray.ErrBadCID},
		{"a block too big", Job{Prefix: raw256, Data: make([]byte, dray.MaxBlockSize+1)}, dray.ErrTooBig},
	}
	for name, lanes := range ways(t) {
		for _, row := range rows {
			jobs := []*Job{{CID: good, Data: data}}
			for range 5 {
				j := row.job
				jobs = append(jobs, &j)
			}
			jobs = append(jobs, &Job{CID: good, Data: data})
			sumAll(jobs, lanes)
			for _, j := range jobs[1:6] {
				var e *dray.Error
				if !errors.Is(j.Err, row.want) || !errors.As(j.Err, &e) || j.Block.CID().Defined() {
					t.Errorf("%s, %s: got %v and %v, want %v", name, row.why, j.Block, j.Err, row.want)
				}
			}
			for _, j := range []*Job{jobs[0], jobs[6]} {
				if j.Err != nil || j.Block.CID() != good {
					t.Errorf("%s, %s: the good job beside it: %v, %v", name, row.why, j.Block, j.Err)
				}
			}
		}
	}
}

// A job that held an error or a block before holds only its new result after.
func TestJobsAreReused(t *testing.T) {
	good := cidOf(t, raw256, []byte("right"))
	for name, lanes := range ways(t) {
		jobs := make([]*Job, 6)
		for i := range jobs {
			jobs[i] = &Job{CID: good}
		}
		for round, text := range []string{"right", "wrong", "right"} {
			for _, j := range jobs {
				j.Data = []byte(text)
			}
			sumAll(jobs, lanes)
			for _, j := range jobs {
				if ok := text == "right"; (j.Err == nil) != ok || j.Block.CID().Defined() != ok {
					t.Errorf("%s, round %d: %v, %v", name, round, j.Block, j.Err)
				}
			}
		}
	}
}

func TestPoolAnswersEveryJobOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	data := randomBytes(r, 1<<16)
	for name, lanes := range ways(t) {
		p := newPool(Config{Workers: 3, QueueBytes: 100_000}, lanes)
		var wg sync.WaitGroup
		var answers atomic.Int64
		const senders, each = 4, 500
		sent := make([][]*Job, senders)
		for s := range sent {
			sent[s] = make([]*Job, each)
			for i := range sent[s] {
				prefix := []cid.Prefix{raw256, rawBlake3}[r.IntN(2)]
				sent[s][i] = &Job{Prefix: prefix, Data: data[:r.IntN(len(data))], Done: func(*Job) { answers.Add(1) }}
			}
			wg.Go(func() {
				for _, j := range sent[s] {
					if err := p.Submit(j); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		}
		wg.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if got := answers.Load(); got != senders*each {
			t.Errorf("%s: %d answers to %d jobs", name, got, senders*each)
		}
		for _, j := range slices.Concat(sent...) {
			if want := cidOf(t, j.Prefix, j.Data); j.Err != nil || j.Block.CID() != want {
				t.Fatalf("%s: %v, %v, want %v", name, j.Block, j.Err, want)
			}
		}
	}
}

func TestPoolSumAll(t *testing.T) {
	for name, lanes := range ways(t) {
		p := newPool(Config{Workers: 2}, lanes)
		var wg sync.WaitGroup
		for s := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(6, uint64(s)))
				for range 20 {
					jobs := make([]*Job, r.IntN(60))
					for i := range jobs {
						jobs[i] = &Job{Prefix: raw256, Data: randomBytes(r, r.IntN(2000))}
					}
					p.SumAll(jobs)
					wantSum256(t, name, jobs)
				}
			})
		}
		wg.Wait()
		p.Close()
		late := []*Job{{Prefix: raw256}}
		p.SumAll(late)
		if !errors.Is(late[0].Err, dray.ErrClosed) {
			t.Errorf("%s: SumAll after Close: %v", name, late[0].Err)
		}
		if err := p.Submit(late[0]); !errors.Is(err, dray.ErrClosed) {
			t.Errorf("%s: Submit after Close: %v", name, err)
		}
	}
}

// The queue refuses or delays what is over its bound, and lets a job in that is larger than the bound when it is empty.
func TestQueueIsBounded(t *testing.T) {
	p := newPool(Config{Workers: 1, QueueBytes: 10_000}, never)
	defer p.Close()
	began, hold := make(chan bool), make(chan bool)
	if err := p.Submit(&Job{Prefix: raw256, Data: make([]byte, 50_000), Done: func(*Job) { began <- true; <-hold }}); err != nil {
		t.Fatal(err)
	}
	<-began // The worker holds one job and will not take another: what follows stays in the queue.
	n := 0
	for p.TrySubmit(&Job{Prefix: raw256, Data: make([]byte, 1000)}) {
		n++
	}
	if n < 5 || n > 10 {
		t.Errorf("a queue of 10,000 bytes took %d jobs of 1,000", n)
	}
	var wg sync.WaitGroup
	done := make(chan bool, 1)
	wg.Go(func() {
		if err := p.Submit(&Job{Prefix: raw256, Data: make([]byte, 50_000), Done: func(*Job) { done <- true }}); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-done:
		t.Error("a job went past the bound")
	default:
	}
	hold <- true
	<-done
	wg.Wait()
}

func TestNothingIsAllocatedForAJob(t *testing.T) {
	data := make([]byte, 4096)
	var b blake3
	if n := testing.AllocsPerRun(100, func() { b.sum256(data) }); n != 0 {
		t.Errorf("blake3 of 4 KiB allocates %v times", n)
	}
	// dray.SealBlock parses the CID, at one small allocation; the hashing adds none for a job. It may for a batch: the race
	// detector makes a sync.Pool forget at random.
	const forBatch = 4
	c := cidOf(t, raw256, data)
	digest := c.Hash()[2:]
	seal := testing.AllocsPerRun(100, func() {
		if _, err := dray.SealBlock(c, digest, data); err != nil {
			t.Error(err)
		}
	})
	for name, lanes := range ways(t) {
		jobs := make([]*Job, 32)
		for i := range jobs {
			jobs[i] = &Job{CID: c, Data: data}
		}
		sumAll(jobs, lanes)
		if n := testing.AllocsPerRun(20, func() { sumAll(jobs, lanes) }); n > seal*float64(len(jobs))+forBatch {
			t.Errorf("%s: %v allocations for %d jobs, of which %v in SealBlock", name, n, len(jobs), seal*float64(len(jobs)))
		}
	}
}

func TestLanesPayIsMeasured(t *testing.T) {
	n := lanesPay()
	t.Logf("lanes pay from %d of them busy", n)
	if n < 2 || n > never || (!kernelWorks && n != never) {
		t.Errorf("lanes pay from %d", n)
	}
}

func BenchmarkSumAll(b *testing.B) {
	for _, size := range []int{100, 256 << 10, 1 << 20} {
		for _, row := range []struct {
			name   string
			prefix cid.Prefix
			lanes  int
		}{{"sha256", raw256, never}, {"sha256-lanes", raw256, 4}, {"blake3", rawBlake3, never}} {
			if row.lanes != never && !kernelWorks {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", row.name, size), func(b *testing.B) {
				r := rand.New(rand.NewPCG(8, 8))
				jobs := make([]*Job, laneCount)
				for i := range jobs {
					data := randomBytes(r, size)
					jobs[i] = &Job{CID: cidOf(b, row.prefix, data), Data: data}
				}
				b.SetBytes(int64(size * len(jobs)))
				b.ReportAllocs()
				for b.Loop() {
					sumAll(jobs, row.lanes)
				}
				if jobs[0].Err != nil {
					b.Fatal(jobs[0].Err)
				}
			})
		}
	}
}

func BenchmarkLibraryBlake3(b *testing.B) {
	data := randomBytes(rand.New(rand.NewPCG(9, 9)), 1<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		upstream.Sum256(data)
	}
}
