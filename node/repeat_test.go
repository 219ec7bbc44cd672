package node

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/transport"
	"dray/unixfs"
	"dray/wire"
)

// TestDuplicatesBelongToTheirTransfer gets two files at a time of a peer that sends every block of the first twice: what came is
// the sum of what the transfers say, to the byte, and the second had none of it twice.
func TestDuplicatesBelongToTheirTransfer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mem := transport.NewMemory(transport.MemoryConfig{})
	has, gets := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	var roots [2]cid.Cid
	blocks := make(map[cid.Cid]int) // which file's
	var onWire [2]int64             // what is sent of each
	for i := range roots {
		path, data := randomFile(t, 3<<20)
		for k := range data {
			data[k] ^= byte(i)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		added, err := has.Add(ctx, path, AddConfig{Profile: unixfs.Profiles()[0]})
		if err != nil {
			t.Fatal(err)
		}
		roots[i] = added.Root
		err = has.FetchDAG(ctx, DAGConfig{Root: added.Root, Each: func(b dray.Block) error {
			blocks[b.CID()] = i
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}

	var mu sync.Mutex
	sent := make(map[cid.Cid]bool)
	peer := newEvil(t, mem)
	defer peer.close()
	peer.on = func(conn transport.Conn, m *wire.Message) {
		mu.Lock()
		defer mu.Unlock()
		for _, w := range m.Wants {
			file, ours := blocks[w.CID]
			if w.Cancel || !ours || sent[w.CID] {
				continue
			}
			sent[w.CID] = true
			b, err := has.Store().Get(ctx, w.CID)
			if err != nil {
				t.Error(err)
				return
			}
			out := wire.Message{Blocks: carried([]dray.Block{b})}
			if file == 0 {
				out.Blocks = carried([]dray.Block{b, b})
			}
			for range out.Blocks {
				onWire[file] += int64(b.Size())
			}
			peer.sendMessage(conn, &out)
		}
	}

	from := []transport.Peer{{ID: peer.net.Self(), Addrs: peer.net.Addrs()}}
	var wg sync.WaitGroup
	dir := t.TempDir()
	for i, name := range []string{"first", "second"} {
		wg.Go(func() {
			_, err := gets.Fetch(ctx, FetchConfig{
				Root: roots[i], Path: filepath.Join(dir, name), Peers: from, Origin: Origin{Name: name},
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	mu.Lock()
	all := onWire
	mu.Unlock()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 { // the last may come when its transfer has ended
		if s := gets.Totals(); s.Bytes+s.DuplicateBytes == all[0]+all[1] {
			break
		}
		<-tick.C
	}
	if s := gets.Totals(); s.DuplicateBytes != all[0]/2 || s.Bytes != all[0]/2+all[1] || s.Uninvited != 0 {
		t.Fatalf("%+v, of %d bytes that were sent", s, all)
	}
	for _, x := range gets.Transfers().Ended {
		p, of := x.Progress, all[0]
		want := of / 2
		if x.Origin.Name == "second" {
			of, want = all[1], 0
		}
		if p.Duplicates != want || p.Fetched+p.Duplicates != of || p.Done != p.Total || p.Reused != 0 {
			t.Errorf("%s: %d bytes came and %d of them twice, want %d of %d", x.Origin.Name, p.Fetched, p.Duplicates, want, of)
		}
		if len(x.Gifts) != 1 || x.Gifts[0].Peer != from[0].ID || x.Gifts[0].Duplicates != want || x.Gifts[0].Bytes != p.Done {
			t.Errorf("%s: gifts %+v", x.Origin.Name, x.Gifts)
		}
	}
}
