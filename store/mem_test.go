package store_test

import (
	"errors"
	"testing"

	"dray"
	"dray/store"
	"dray/store/storetest"
)

func TestMem(t *testing.T) {
	storetest.Run(t, func(*testing.T) dray.Store { return store.NewMem(0) })
}

func TestCounting(t *testing.T) {
	storetest.Run(t, func(*testing.T) dray.Store { return &store.Counting{Store: store.NewMem(0)} })
}

func TestMemLimit(t *testing.T) {
	m := store.NewMem(1000)
	a, b := storetest.Block(1, 600), storetest.Block(2, 600)
	if err := m.Put(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := m.Put(t.Context(), a, b); !errors.Is(err, dray.ErrNoSpace) {
		t.Errorf("Put beyond the limit: %v", err)
	}
	if err := m.Delete(t.Context(), a.CID()); err != nil {
		t.Fatal(err)
	}
	if err := m.Put(t.Context(), b); err != nil {
		t.Errorf("Put after Delete: %v", err)
	}
	if m.Len() != 1 || m.Bytes() != 600 {
		t.Errorf("%d blocks, %d bytes", m.Len(), m.Bytes())
	}
}

func TestCountingCounts(t *testing.T) {
	c := &store.Counting{Store: store.NewMem(0)}
	b := storetest.Block(1, 600)
	if err := c.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), b.CID()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetRaw(t.Context(), storetest.Block(2, 1).CID(), nil); !errors.Is(err, dray.ErrNotFound) {
		t.Fatal(err)
	}
	if c.Gets.Load() != 2 || c.Misses.Load() != 1 || c.GetBytes.Load() != 600 || c.PutBytes.Load() != 600 {
		t.Errorf("gets %d misses %d, %d bytes out, %d in", c.Gets.Load(), c.Misses.Load(), c.GetBytes.Load(), c.PutBytes.Load())
	}
}

func TestFaulty(t *testing.T) {
	storetest.Run(t, func(*testing.T) dray.Store { return &storetest.Faulty{Store: store.NewMem(0)} })
	why := errors.New("the disk is on fire")
	f := &storetest.Faulty{Store: store.NewMem(0)}
	b := storetest.Block(1, 10)
	f.Fail("put", why)
	if err := f.Put(t.Context(), b); !errors.Is(err, why) {
		t.Errorf("Put: %v", err)
	}
	f.Fail("put", nil)
	if err := f.Put(t.Context(), b); err != nil {
		t.Errorf("Put after it was healed: %v", err)
	}
	f.Fail("get", why)
	if _, err := f.GetRaw(t.Context(), b.CID(), nil); !errors.Is(err, why) {
		t.Errorf("GetRaw: %v", err)
	}
}
