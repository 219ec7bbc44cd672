package node

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"dray"
	"dray/store"
	"dray/transport"
)

// crowded is a network whose peers have no room until a while has passed.
type crowded struct {
	transport.Network
	until time.Time
}

func (c *crowded) Dial(ctx context.Context, id dray.PeerID, addrs []string) (transport.Conn, error) {
	if time.Now().Before(c.until) {
		return nil, &dray.Error{Op: "dial", Peer: id, Err: fmt.Errorf("%w: %w", dray.ErrUnreachable, transport.ErrBusy)}
	}
	return c.Network.Dial(ctx, id, addrs)
}

// TestPeerWithoutRoom: a peer that has no room for more connections is waited for, far longer than one that cannot be
// reached, and the reason is told meanwhile.
func TestPeerWithoutRoom(t *testing.T) {
	for _, c := range []struct {
		full, least, most time.Duration
		err               error
	}{
		{10 * time.Second, 10 * time.Second, 14 * time.Second, nil},
		{time.Hour, WaitForRoom, WaitForRoom + 10*time.Second, dray.ErrUnreachable},
	} {
		t.Run(c.full.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := transport.NewMemory(transport.MemoryConfig{Latency: time.Millisecond, Bandwidth: 10 << 20})
				nets := []transport.Network{mem.NewHost(), &crowded{mem.NewHost(), time.Now().Add(c.full)}}
				var all []*Node
				for _, net := range nets {
					n, err := New(Config{Store: store.NewMem(0), Network: net})
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, n)
				}
				root := tinyTree(t, context.Background(), all[0], 100)
				start, told := time.Now(), false
				_, err := all[1].Fetch(context.Background(), FetchConfig{
					Root: root, Peers: []transport.Peer{peerOf(all[0])},
					Progress: func(p Progress) { told = told || Busy(p.Unreached) },
				})
				if !errors.Is(err, c.err) {
					t.Errorf("%v, want %v", err, c.err)
				}
				if took := time.Since(start); took < c.least || took > c.most {
					t.Errorf("it took %v", took)
				}
				if !told {
					t.Error("the reason was not told")
				}
				for i, n := range all {
					n.Close()
					nets[i].Close()
				}
			})
		})
	}
}
