package exchange

import (
	"fmt"
	"testing"
	"time"

	"dray"
)

func passed(t *testing.T, e *Engine, now time.Duration, id dray.PeerID, n int64) {
	t.Helper()
	e.PeerUp(now, id, Caps{Haves: true})
	e.acct(e.peers[id]).Sent += n
	e.PeerDown(now, id)
}

// TestLedgerForgets keeps, of too many peers, those who were seen last, whoever came first; and those who are
// connected.
func TestLedgerForgets(t *testing.T) {
	e := New(Config{})
	now := time.Second
	name := func(i int) dray.PeerID { return dray.PeerID(fmt.Sprintf("p%05d", i)) }
	e.PeerUp(now, "here", Caps{Haves: true})
	for i := range MaxAccounts - 1 {
		now++
		passed(t, e, now, name(i), 1)
	}
	passed(t, e, now+1, name(0), 1) // the first comes back
	for i := range 100 {
		now += 2
		passed(t, e, now, name(MaxAccounts+i), 1)
	}
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
	if n := len(e.accounts.of); n > MaxAccounts {
		t.Errorf("%d accounts", n)
	}
	for id, want := range map[dray.PeerID]int64{name(0): 2, name(1): 0, name(100): 0, name(101): 1, name(MaxAccounts + 99): 1} {
		if got := e.Account(id).Sent; got != want {
			t.Errorf("%s: %d, want %d", string(id), got, want)
		}
	}
	if e.accounts.of["here"] == nil {
		t.Error("the account of a peer that is connected was forgotten")
	}
	last := time.Duration(-1)
	for id, a := range e.Accounts {
		if a.Seen < last {
			t.Fatalf("%v was seen at %v, and comes after %v", id, a.Seen, last)
		}
		last = a.Seen
	}
}

// TestLedgerStrangers: a crowd with whom nothing passes pushes nobody out, and leaves nothing behind.
func TestLedgerStrangers(t *testing.T) {
	e := New(Config{})
	passed(t, e, time.Second, "friend", 5)
	for i := range 2 * MaxAccounts {
		now := time.Second + time.Duration(i)
		id := dray.PeerID(fmt.Sprintf("s%05d", i))
		e.PeerUp(now, id, Caps{Haves: true})
		if i%10 > 0 {
			e.PeerDown(now, id)
		}
	}
	if e.Account("friend").Sent != 5 {
		t.Error("strangers pushed a friend out")
	}
	for i := range 2 * MaxAccounts {
		e.PeerDown(time.Hour, dray.PeerID(fmt.Sprintf("s%05d", i)))
	}
	if n := len(e.accounts.of); n != 1 {
		t.Errorf("%d accounts are left of one", n)
	}
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestLedgerRestored gives an engine what another had, in any order: the order of forgetting is the same.
func TestLedgerRestored(t *testing.T) {
	a, b := New(Config{}), New(Config{})
	for i := range 50 {
		passed(t, a, time.Duration(i)*time.Second, dray.PeerID(fmt.Sprintf("p%d", i*7%50)), int64(i+1))
	}
	type kept struct {
		id dray.PeerID
		a  Account
	}
	var list []kept
	for id, x := range a.Accounts {
		list = append(list, kept{id, x})
	}
	for i := range list {
		k := list[i*11%len(list)]
		k.a.Seen -= time.Hour
		b.SetAccount(k.id, k.a)
	}
	b.SetAccount("bad", Account{Sent: -1})
	b.SetAccount("empty", Account{})
	i := 0
	for id, x := range b.Accounts {
		if list[i].id != id || list[i].a.Sent != x.Sent || x.Seen != list[i].a.Seen-time.Hour {
			t.Errorf("account %d is %v %+v, was %v", i, id, x, list[i])
		}
		i++
	}
	if i != len(list) {
		t.Errorf("%d accounts of %d", i, len(list))
	}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestLedgerLate counts what came before a peer left and is only looked at afterwards (invariant 11).
func TestLedgerLate(t *testing.T) {
	e := New(Config{})
	e.PeerUp(1, "p", Caps{Haves: true})
	p := e.peers["p"]
	e.PeerDown(2, "p")
	e.acct(p).Duplicate += 10
	if got := e.Account("p").Duplicate; got != 10 {
		t.Errorf("%d bytes are counted", got)
	}
	e.PeerUp(3, "p", Caps{Haves: true})
	if got := e.Account("p").Duplicate; got != 10 {
		t.Errorf("%d bytes are counted once it is back", got)
	}
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
}
