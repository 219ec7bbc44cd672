package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"dray"
	"dray/store"
	"dray/transport"
)

// holding is a store that begins to write and goes on when it is told.
type holding struct {
	dray.Store
	began, goOn chan struct{}
}

func (s *holding) Put(ctx context.Context, blocks ...dray.Block) error {
	select {
	case s.began <- struct{}{}:
	default:
	}
	<-s.goOn
	return s.Store.Put(ctx, blocks...)
}

// TestSettle waits for a block of a session that is over, which is still being written.
func TestSettle(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	st := &holding{store.NewMem(0), make(chan struct{}, 1), make(chan struct{})}
	a, err := New(Config{Store: store.NewMem(0), Network: mem.NewHost()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := New(Config{Store: st, Network: mem.NewHost()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	block := junk(t, 0, 1, 1000)[0]
	if err := a.Put(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := b.Connect(t.Context(), transport.Peer{ID: a.Self(), Addrs: a.Addrs()}); err != nil {
		t.Fatal(err)
	}
	s := b.NewSession(SessionConfig{})
	got := make(chan error, 1)
	b.wg.Go(func() {
		_, err := s.Get(ctx, block.CID())
		got <- err
	})
	<-st.began
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Fatalf("the get ended with %v", err)
	}
	s.Close()
	short, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if err := b.Settle(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while a block is being written: %v", err)
	}
	close(st.goOn)
	if err := b.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := b.Store().Stat(t.Context(), block.CID()); err != nil {
		t.Errorf("the block is not there: %v", err)
	}
	b.Close()
	if err := b.Settle(t.Context()); !errors.Is(err, dray.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}
