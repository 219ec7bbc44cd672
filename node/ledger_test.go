package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/exchange"
	"dray/store"
	"dray/transport"
)

func testPeerID(t testing.TB, i int) dray.PeerID {
	t.Helper()
	sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
	m, err := mh.Encode(sum[:], mh.SHA2_256)
	if err != nil {
		t.Fatal(err)
	}
	return dray.PeerID(m)
}

func testAccounts(t testing.TB, n int) []account {
	t.Helper()
	var out []account
	for i := range n {
		out = append(out, account{
			testPeerID(t, i), exchange.Account{Sent: int64(i), Received: 1 << 60, Duplicate: 7}, time.Unix(int64(1e9+i), 0),
		})
	}
	return out
}

// TestLedgerFile reads what was written, and nothing else: not a file with one byte changed, nor one that is cut off
// anywhere.
func TestLedgerFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := OpenLedger(path)
	if err != nil || len(l.kept) != 0 {
		t.Fatalf("a ledger that is not there: %v, %d accounts", err, len(l.kept))
	}
	want := testAccounts(t, 5)
	if err := l.write(want); err != nil {
		t.Fatal(err)
	}
	l, err = OpenLedger(path)
	if err != nil || fmt.Sprint(l.kept) != fmt.Sprint(want) {
		t.Fatalf("%v, %v", err, l.kept)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		for what, bad := range map[string][]byte{
			"changed": append(append(append([]byte(nil), text[:i]...), text[i]^1), text[i+1:]...),
			"cut off": append([]byte(nil), text[:i]...),
		} {
			if what == "cut off" && i == len(text)-1 {
				continue // all but the line's end is there
			}
			if got, err := parseLedger(bad); err == nil && fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%s at %d: read as %v", what, i, got)
			} else if err == nil && i < len(text)-1 {
				t.Fatalf("%s at %d: taken", what, i)
			}
		}
	}
	for what, bad := range map[string]string{
		"empty": "", "another file": "{}", "two ledgers": string(text) + string(text),
		"more": string(text) + "x", "negative": string(appendLedger(nil, []account{{testPeerID(t, 1), exchange.Account{Sent: -1}, time.Unix(1, 0)}})),
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenLedger(path)
		var e *dray.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), path) || len(l.kept) != 0 {
			t.Errorf("%s: %v, %d accounts", what, err, len(l.kept))
		}
		if err := l.write(want); err != nil {
			t.Errorf("%s: it cannot be replaced: %v", what, err)
		}
	}
}

// TestLedgerBounds keeps those that were seen last of too many, and reads no file that is too long.
func TestLedgerBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := &Ledger{path: path}
	list := testAccounts(t, exchange.MaxAccounts+10)
	if err := l.write(list); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLedger(path)
	if err != nil || len(l.kept) != exchange.MaxAccounts || l.kept[0].peer != list[10].peer {
		t.Errorf("%v, %d accounts", err, len(l.kept))
	}
	if _, err := parseLedger(appendLedger(nil, list)); err == nil {
		t.Error("more than the bound are read")
	}
	if err := os.Truncate(path, maxLedgerFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLedger(path); err == nil {
		t.Error("a file that is too long is read")
	}
}

// TestLedgerKept lets something pass between two nodes, and restarts one: its account of the other is what it was. It
// is written every minute, and when the node is closed.
func TestLedgerKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	synctest.Test(t, func(t *testing.T) {
		mem := transport.NewMemory(transport.MemoryConfig{})
		ctx := context.Background()
		start := func() *Node {
			l, err := OpenLedger(path)
			if err != nil {
				t.Fatal(err)
			}
			n, err := New(Config{Store: store.NewMem(1 << 30), Network: mem.NewHost(), Ledger: l})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		a := start()
		b, err := New(Config{Store: store.NewMem(1 << 30), Network: mem.NewHost()})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		root := tinyTree(t, ctx, a, 5000)
		if _, err := b.Fetch(ctx, FetchConfig{Root: root, Peers: []transport.Peer{peerOf(a)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("written before a minute has passed")
		}
		time.Sleep(ledgerEvery + time.Second)
		synctest.Wait()
		of := func(n *Node) (x exchange.Account) {
			n.ask(func() { x = n.engine.Account(b.Self()) })
			return x
		}
		was := of(a)
		if was.Sent < 5000*64 {
			t.Errorf("%d bytes are said to be sent", was.Sent)
		}
		l, err := OpenLedger(path)
		if err != nil || len(l.kept) != 1 || l.kept[0].Sent != was.Sent {
			t.Errorf("after a minute: %v, %v", err, l.kept)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		a.cfg.Ledger.wrote = 0 // the loop does not look at it
		a.Close()
		a2 := start()
		defer a2.Close()
		if now := of(a2); now.Sent != was.Sent || now.Received != was.Received || now.Seen > 0 {
			t.Errorf("%+v before, %+v after", was, now)
		}
	})
}
