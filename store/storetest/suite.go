// Package storetest holds the conformance suite that every [dray.Store] passes, and [Faulty], a store that fails when it
// is told to.
//
// # What it does not do
//
// It does not test what only some stores promise, such as surviving a crash; those tests stand beside their store.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"dray"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Run tests a store. Open returns an empty one, which the suite closes.
func Run(t *testing.T, open func(t *testing.T) dray.Store) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, s dray.Store)
	}{
		{"Empty", testEmpty},
		{"PutGet", testPutGet},
		{"ByMultihash", testByMultihash},
		{"PutTwice", testPutTwice},
		{"PutKeepsNothing", testReuse},
		{"Delete", testDelete},
		{"All", testAll},
		{"TooBig", testTooBig},
		{"BadCID", testBadCID},
		{"Identity", testIdentity},
		{"Cancelled", testCancelled},
		{"GetRaw", testGetRaw},
		{"Concurrent", testConcurrent},
		{"Model", testModel},
		{"Closed", testClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			tt.run(t, s)
			if err := s.Close(); err != nil && !errors.Is(err, dray.ErrClosed) {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// Block returns a block of size bytes made from seed, with a raw sha2-256 CID.
func Block(seed uint64, size int) dray.Block {
	return BlockOf(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}, seed, size)
}

// BlockOf returns a block of size bytes made from seed, with a CID of the given kind.
func BlockOf(prefix cid.Prefix, seed uint64, size int) dray.Block {
	data := make([]byte, size)
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	rand.NewChaCha8(key).Read(data)
	b, err := dray.Hashed(prefix, data)
	if err != nil {
		panic(err)
	}
	return b
}

// sizes are those at which stores tend to change what they do.
var sizes = []int{0, 1, 100, 16 << 10, 16<<10 + 1, 256 << 10, 1 << 20, dray.MaxBlockSize}

func testEmpty(t *testing.T, s dray.Store) {
	ctx, c := t.Context(), Block(1, 10).CID()
	if _, err := s.Get(ctx, c); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Get: %v, want not found", err)
	}
	if _, err := s.Stat(ctx, c); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Stat: %v, want not found", err)
	}
	if err := s.Delete(ctx, c); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := s.Sync(ctx); err != nil {
		t.Errorf("Sync: %v", err)
	}
	for st, err := range s.All(ctx) {
		t.Errorf("All yields %v, %v", st, err)
	}
}

// wantBlock checks that s has b.
func wantBlock(t *testing.T, s dray.Store, b dray.Block) {
	t.Helper()
	ctx := t.Context()
	got, err := s.Get(ctx, b.CID())
	if err != nil {
		t.Errorf("Get: %v", err)
		return
	}
	if got.CID() != b.CID() || !bytes.Equal(got.Data(), b.Data()) {
		t.Errorf("Get(%v) returns %v", b, got)
	}
	n, err := s.Stat(ctx, b.CID())
	if err != nil || n != int64(b.Size()) {
		t.Errorf("Stat(%v) = %d, %v", b, n, err)
	}
}

func testPutGet(t *testing.T, s dray.Store) {
	var all []dray.Block
	for i, size := range sizes {
		for _, code := range []uint64{mh.SHA2_256, mh.BLAKE3, mh.SHA2_512, mh.BLAKE2B_MIN + 31} {
			h, _ := dray.LookupHash(code)
			all = append(all, BlockOf(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: code, MhLength: h.Size}, uint64(i), size))
		}
	}
	if err := s.Put(t.Context(), all...); err != nil {
		t.Fatalf("Put: %v", err)
	}
	for _, b := range all {
		wantBlock(t, s, b)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	for _, b := range all {
		wantBlock(t, s, b)
	}
}

func testByMultihash(t *testing.T, s dray.Store) {
	b := Block(7, 1000)
	if err := s.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for _, c := range []cid.Cid{cid.NewCidV0(b.CID().Hash()), cid.NewCidV1(cid.DagProtobuf, b.CID().Hash())} {
		got, err := s.Get(t.Context(), c)
		if err != nil || got.CID() != c || !bytes.Equal(got.Data(), b.Data()) {
			t.Errorf("Get(%v) = %v, %v", c, got, err)
		}
	}
}

func testPutTwice(t *testing.T, s dray.Store) {
	for _, size := range sizes {
		b := Block(9, size)
		for range 2 {
			if err := s.Put(t.Context(), b, b); err != nil {
				t.Fatal(err)
			}
		}
		wantBlock(t, s, b)
	}
	if n := len(list(t, s)); n != len(sizes) {
		t.Errorf("%d blocks after putting %d twice", n, len(sizes))
	}
}

func testReuse(t *testing.T, s dray.Store) {
	for _, size := range sizes[1:] {
		want := Block(11, size)
		b, err := dray.NewBlock(want.CID(), bytes.Clone(want.Data()))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		clear(b.Data())
		wantBlock(t, s, want)
	}
}

func testDelete(t *testing.T, s dray.Store) {
	ctx := t.Context()
	for _, synced := range []bool{false, true} {
		for _, size := range sizes {
			b, other := Block(13, size), Block(14, size)
			if size == 0 {
				other = Block(14, 5)
			}
			if err := s.Put(ctx, b, other); err != nil {
				t.Fatal(err)
			}
			if synced {
				if err := s.Sync(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Delete(ctx, b.CID()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(ctx, b.CID()); !errors.Is(err, dray.ErrNotFound) {
				t.Errorf("Get after Delete: %v", err)
			}
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Stat(ctx, b.CID()); !errors.Is(err, dray.ErrNotFound) {
				t.Errorf("Stat after Delete and Sync: %v", err)
			}
			wantBlock(t, s, other)
			if err := s.Put(ctx, b); err != nil {
				t.Fatal(err)
			}
			wantBlock(t, s, b)
			if err := s.Delete(ctx, b.CID()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// list returns what All yields, by multihash.
func list(t *testing.T, s dray.Store) map[string]int64 {
	t.Helper()
	m := make(map[string]int64)
	for st, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatalf("All: %v", err)
		}
		if st.CID.Type() != cid.Raw {
			t.Errorf("All yields %v, which is not raw", st.CID)
		}
		h := string(st.CID.Hash())
		if _, ok := m[h]; ok {
			t.Errorf("All yields %v twice", st.CID)
		}
		m[h] = st.Size
	}
	return m
}

func testAll(t *testing.T, s dray.Store) {
	want := make(map[string]int64)
	for i := range 50 {
		b := Block(uint64(i), i*1000)
		if err := s.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		want[string(b.CID().Hash())] = int64(b.Size())
		if i == 25 {
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := list(t, s)
	if len(got) != len(want) {
		t.Errorf("%d blocks, want %d", len(got), len(want))
	}
	for h, n := range want {
		if got[h] != n {
			t.Errorf("%x has size %d, want %d", h, got[h], n)
		}
	}
	n := 0
	for range s.All(t.Context()) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("%d pairs before break, want 3", n)
	}
}

func testTooBig(t *testing.T, s dray.Store) {
	b := Block(1, dray.MaxBlockSize+1)
	if err := s.Put(t.Context(), b); !errors.Is(err, dray.ErrTooBig) {
		t.Errorf("Put of %d bytes: %v", b.Size(), err)
	}
	if _, err := s.Stat(t.Context(), b.CID()); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Stat: %v", err)
	}
}

func testBadCID(t *testing.T, s dray.Store) {
	ctx := t.Context()
	_, err := s.Get(ctx, cid.Undef)
	if !errors.Is(err, dray.ErrBadCID) {
		t.Errorf("Get: %v", err)
	}
	if _, err := s.Stat(ctx, cid.Undef); !errors.Is(err, dray.ErrBadCID) {
		t.Errorf("Stat: %v", err)
	}
	if err := s.Put(ctx, dray.Block{}); !errors.Is(err, dray.ErrBadCID) {
		t.Errorf("Put: %v", err)
	}
	if err := s.Delete(ctx, cid.Undef); !errors.Is(err, dray.ErrBadCID) {
		t.Errorf("Delete: %v", err)
	}
	var de *dray.Error
	if !errors.As(err, &de) {
		t.Errorf("Get returns %T, want a *dray.Error in it", err)
	}
}

func testIdentity(t *testing.T, s dray.Store) {
	for _, n := range []int{0, 10, 127, 128} {
		b := BlockOf(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.IDENTITY, MhLength: -1}, 3, n)
		wantBlock(t, s, b)
		if err := s.Put(t.Context(), b); err != nil {
			t.Errorf("Put: %v", err)
		}
		wantBlock(t, s, b)
	}
	if n := len(list(t, s)); n != 0 {
		t.Errorf("%d identity blocks are listed", n)
	}
}

func testCancelled(t *testing.T, s dray.Store) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the reason")
	cancel(why)
	b := Block(1, 10)
	for op, err := range map[string]error{
		"put": s.Put(ctx, b), "delete": s.Delete(ctx, b.CID()), "sync": s.Sync(ctx),
	} {
		if !errors.Is(err, why) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if _, err := s.Get(ctx, b.CID()); !errors.Is(err, why) {
		t.Errorf("get: %v", err)
	}
}

func testGetRaw(t *testing.T, s dray.Store) {
	raw, ok := s.(dray.RawGetter)
	if !ok {
		return
	}
	for _, size := range sizes {
		b := Block(21, size)
		if err := s.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		roomy, tight := make([]byte, 3, size+10), make([]byte, 0, size/2)
		for _, buf := range [][]byte{nil, roomy, tight} {
			got, err := raw.GetRaw(t.Context(), b.CID(), buf)
			if err != nil || !bytes.Equal(got, b.Data()) {
				t.Fatalf("GetRaw of %d bytes into %d: %d bytes, %v", size, cap(buf), len(got), err)
			}
			if cap(buf) > 0 && cap(buf) >= size && size > 0 && &got[0] != &buf[:1][0] {
				t.Errorf("GetRaw of %d bytes does not use the buffer of %d", size, cap(buf))
			}
		}
	}
	if _, err := raw.GetRaw(t.Context(), Block(22, 9).CID(), nil); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("GetRaw: %v", err)
	}
}

// testConcurrent lets readers, writers, deleters, listers and syncers loose on the same few blocks.
func testConcurrent(t *testing.T, s dray.Store) {
	var blocks []dray.Block
	for i := range 24 {
		blocks = append(blocks, Block(uint64(i), []int{10, 5000, 20_000, 70_000}[i%4]))
	}
	kept, churned := blocks[:12], blocks[12:]
	if err := s.Put(t.Context(), kept...); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 5))
			for range 60 {
				b := churned[rng.IntN(len(churned))]
				var err error
				switch rng.IntN(4) {
				case 0, 1:
					err = s.Put(t.Context(), b)
				case 2:
					err = s.Delete(t.Context(), b.CID())
				case 3:
					if rng.IntN(8) == 0 {
						err = s.Sync(t.Context())
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 6))
			for range 60 {
				wantBlock(t, s, kept[rng.IntN(len(kept))])
				b := churned[rng.IntN(len(churned))]
				if got, err := s.Get(t.Context(), b.CID()); err == nil && !bytes.Equal(got.Data(), b.Data()) {
					t.Errorf("Get(%v) returns %v", b, got)
				} else if err != nil && !errors.Is(err, dray.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			for _, err := range s.All(t.Context()) {
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
}

// testModel runs random calls on the store and on a map, and compares.
func testModel(t *testing.T, s dray.Store) {
	rng := rand.New(rand.NewPCG(1, 2))
	var blocks []dray.Block
	for i := range 40 {
		blocks = append(blocks, Block(uint64(100+i), rng.IntN(40_000)))
	}
	model := make(map[string]int64)
	for step := range 600 {
		b := blocks[rng.IntN(len(blocks))]
		h := string(b.CID().Hash())
		switch rng.IntN(10) {
		case 0, 1, 2:
			if err := s.Put(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			model[h] = int64(b.Size())
		case 3, 4:
			if err := s.Delete(t.Context(), b.CID()); err != nil {
				t.Fatal(err)
			}
			delete(model, h)
		case 5:
			if step%3 == 0 {
				if err := s.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		default:
			got, err := s.Get(t.Context(), b.CID())
			if _, ok := model[h]; ok != (err == nil) || err == nil && !bytes.Equal(got.Data(), b.Data()) {
				t.Fatalf("step %d: Get(%v) = %v, %v; held: %v", step, b, got, err, ok)
			}
		}
	}
	if got, want := fmt.Sprint(list(t, s)), fmt.Sprint(model); got != want {
		t.Errorf("All yields\n%s, want\n%s", got, want)
	}
}

func testClosed(t *testing.T, s dray.Store) {
	ctx, b := t.Context(), Block(1, 10)
	if err := s.Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, getErr := s.Get(ctx, b.CID())
	_, statErr := s.Stat(ctx, b.CID())
	var listErr error
	for _, err := range s.All(ctx) {
		listErr = err
	}
	for op, err := range map[string]error{
		"get": getErr, "stat": statErr, "all": listErr, "put": s.Put(ctx, b), "delete": s.Delete(ctx, b.CID()),
		"sync": s.Sync(ctx), "close": s.Close(),
	} {
		if !errors.Is(err, dray.ErrClosed) {
			t.Errorf("%s after Close: %v", op, err)
		}
	}
}
