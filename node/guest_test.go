package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/store"
	"dray/transport"
	"dray/wire"
)

// doorman is an Admission that tests change.
type doorman struct {
	mu     sync.Mutex
	says   map[dray.PeerID]transport.Verdict
	others transport.Verdict
}

func (d *doorman) Admit(peer dray.PeerID) transport.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, ok := d.says[peer]; ok {
		return v
	}
	return d.others
}

func (d *doorman) say(peer dray.PeerID, v transport.Verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.says == nil {
		d.says = make(map[dray.PeerID]transport.Verdict)
	}
	d.says[peer] = v
}

// visit is a host with a door and one that wants in, in virtual time, 1 ms apart.
type visit struct {
	t     *testing.T
	mem   *transport.Memory
	door  *doorman
	host  *Node
	want  *Node
	nodes []*Node
	mu    sync.Mutex
	notes []string // what want was told
}

func newVisit(t *testing.T, others transport.Verdict, change func(*Config)) *visit {
	t.Helper()
	v := &visit{t: t, mem: transport.NewMemory(transport.MemoryConfig{Latency: time.Millisecond}), door: &doorman{others: others}}
	v.host = v.node(func(c *Config) {
		c.Admission = v.door
		if change != nil {
			change(c)
		}
	})
	v.want = v.node(func(c *Config) {
		c.Note = func(from dray.PeerID, note wire.Note) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.notes = append(v.notes, fmt.Sprintf("%d %s", note.Kind, note.Data))
		}
	})
	return v
}

func (v *visit) node(change func(*Config)) *Node {
	v.t.Helper()
	c := Config{Store: store.NewMem(0), Network: v.mem.NewHost(), HashWorkers: 1, Workers: 1}
	change(&c)
	n, err := New(c)
	if err != nil {
		v.t.Fatal(err)
	}
	v.nodes = append(v.nodes, n)
	return n
}

func (v *visit) close() {
	for _, n := range v.nodes {
		n.Close()
	}
	for _, n := range v.nodes {
		n.net.Close()
	}
}

func (v *visit) told() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.notes)
}

func (v *visit) connect(n *Node) {
	v.t.Helper()
	if err := n.Connect(v.t.Context(), transport.Peer{ID: v.host.Self(), Addrs: v.host.Addrs()}); err != nil {
		v.t.Fatal(err)
	}
	synctest.Wait()
}

// block puts a block into the host.
func (v *visit) block(text string) cid.Cid {
	v.t.Helper()
	b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, mh.SHA2_256), []byte(text))
	if err != nil {
		v.t.Fatal(err)
	}
	if err := v.host.Put(v.t.Context(), b); err != nil {
		v.t.Fatal(err)
	}
	return b.CID()
}

// get wants a block of the host, and says how it ended on the channel.
func (v *visit) get(wg *sync.WaitGroup, c cid.Cid, within time.Duration) <-chan error {
	got := make(chan error, 1)
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(v.t.Context(), within)
		defer cancel()
		s := v.want.NewSession(SessionConfig{Peers: []dray.PeerID{v.host.Self()}})
		defer s.Close()
		_, err := s.Get(ctx, c)
		got <- err
	})
	return got
}

// TestGuestIsHeardOnceAdmitted: what a peer has asked for before it was admitted is answered after, on the connection that it
// has; nobody asks again.
func TestGuestIsHeardOnceAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		v := newVisit(t, transport.Undecided, nil)
		c := v.block("for members")
		v.connect(v.want)
		got := v.get(&wg, c, time.Hour)
		time.Sleep(3 * time.Second)
		if guests := v.host.Guests(); len(guests) != 1 || guests[0] != v.want.Self() || len(v.host.Peers()) != 0 {
			t.Errorf("guests are %v, peers %v", guests, v.host.Peers())
		}
		select {
		case err := <-got:
			t.Errorf("answered before it was admitted: %v", err)
		default:
		}
		v.door.say(v.want.Self(), transport.Admitted)
		v.host.Readmit()
		begin := time.Now()
		if err := <-got; err != nil || time.Since(begin) > time.Second {
			t.Errorf("answered after %v: %v", time.Since(begin), err)
		}
		if guests := v.host.Guests(); len(guests) != 0 || len(v.host.Peers()) != 1 {
			t.Errorf("guests are %v, peers %v", guests, v.host.Peers())
		}
		wg.Wait()
		v.close()
	})
}

// TestLossyGuestBeginsAgain: a peer says more than is kept; when it is admitted the connection is dropped, and on the next one
// it is served.
func TestLossyGuestBeginsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		v := newVisit(t, transport.Undecided, func(c *Config) { c.Tentative.Messages = 2 })
		v.connect(v.want)
		for i := range 4 {
			_ = v.get(&wg, v.block(fmt.Sprint(i)), 5*time.Second)
			time.Sleep(time.Second)
		}
		v.door.say(v.want.Self(), transport.Admitted)
		v.host.Readmit()
		time.Sleep(10 * time.Millisecond)
		if len(v.host.Peers())+len(v.want.Peers()) != 0 {
			t.Errorf("still connected: %v, %v", v.host.Peers(), v.want.Peers())
		}
		v.connect(v.want)
		if err := <-v.get(&wg, v.block("new"), time.Minute); err != nil {
			t.Error(err)
		}
		wg.Wait()
		v.close()
	})
}

// TestOversizedGuest: a frame that is larger than the bound is not read before the peer is admitted.
func TestOversizedGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, transport.Undecided, func(c *Config) { c.Tentative.Bytes = 100 })
		h := v.mem.NewHost()
		c, err := h.Dial(t.Context(), v.host.Self(), v.host.Addrs())
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Open(t.Context(), wire.ProtocolSwap1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(append([]byte{0, 0, 0, 0, 200, 0, 0, 0}, make([]byte, 200)...)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if len(v.host.Guests()) != 1 {
			t.Error("the guest was dismissed")
		}
		v.door.say(h.Self(), transport.Admitted)
		v.host.Readmit()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, transport.ErrReset) {
			t.Errorf("the stream ended with %v", err)
		}
		v.close()
		h.Close()
	})
}

// TestRefusedPeerIsTold: refused at once, refused as a guest, and refused after it was admitted: each time it hears so, and is
// disconnected.
func TestRefusedPeerIsTold(t *testing.T) {
	for _, first := range []transport.Verdict{transport.Refused, transport.Undecided, transport.Admitted} {
		t.Run(first.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVisit(t, first, nil)
				v.connect(v.want)
				time.Sleep(time.Second)
				if first != transport.Refused {
					if told := v.told(); len(told) > 0 || len(v.want.Peers()) != 1 {
						t.Errorf("told %q before it was refused", told)
					}
					v.door.say(v.want.Self(), transport.Refused)
					v.host.Readmit()
					time.Sleep(time.Second)
				}
				if told := v.told(); !slices.Equal(told, []string{"2 not admitted"}) {
					t.Errorf("told %q", told)
				}
				if len(v.host.Peers())+len(v.want.Peers())+len(v.host.Guests()) != 0 {
					t.Errorf("connected: %v, %v, %v", v.host.Peers(), v.want.Peers(), v.host.Guests())
				}
				v.close()
			})
		})
	}
}

// TestRefusedBeforeDialled: a peer that refuses does so as soon as there is a link, which may be before the dial that made it is
// noted as a success. Why the link went is known all the same.
func TestRefusedBeforeDialled(t *testing.T) {
	for _, row := range []struct {
		name    string
		before  error // of an earlier dial
		refuses bool
	}{
		{"it goes without a word", nil, false},
		{"it goes without a word, after a dial in vain", dray.ErrUnreachable, false},
		{"it refuses", nil, true},
		{"it refuses, after a dial in vain", dray.ErrUnreachable, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := transport.NewMemory(transport.MemoryConfig{})
				a, b := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
				to := transport.Peer{ID: b.Self(), Addrs: b.Addrs()}
				a.Introduce(to)
				if _, err := a.net.Dial(t.Context(), to.ID, to.Addrs); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				linked := false
				a.ask(func() {
					l := a.links[to.ID]
					if linked = l != nil; !linked {
						return
					}
					a.book[to.ID].err = row.before
					if row.refuses {
						a.noted(to.ID, wire.Note{Kind: wire.NoteRefused, Data: []byte("not admitted")})
					} else {
						a.closeLink(l)
					}
					a.dialled(to.ID, to.Addrs, nil)
				})
				away := a.Unreached(to)
				if !linked || AllRefuse(away) != row.refuses || len(away) > 0 != row.refuses {
					t.Errorf("linked: %v; known is %v", linked, away)
				}
			})
		})
	}
}

// TestGuestsAreBounded: strangers come and stay, each with something to say. No more are kept than the bound; those who came
// first go first; a member is served as before; those that nobody decides about are sent away in the end.
func TestGuestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		v := newVisit(t, transport.Undecided, func(c *Config) { c.Tentative.Peers = 8 })
		v.door.say(v.want.Self(), transport.Admitted)
		v.connect(v.want)
		var ids []dray.PeerID
		var hosts []transport.Network
		for range 100 {
			h := v.mem.NewHost()
			c, err := h.Dial(t.Context(), v.host.Self(), v.host.Addrs())
			if err != nil {
				t.Fatal(err)
			}
			for range guestStreams + 2 {
				if s, err := c.Open(t.Context(), wire.ProtocolSwap1); err == nil {
					_, _ = s.Write([]byte{0, 0, 0, 0, 3, 0, 0, 0, 1, 1, 1})
				}
			}
			ids, hosts = append(ids, h.Self()), append(hosts, h)
			synctest.Wait()
		}
		time.Sleep(10 * time.Millisecond)
		if guests := v.host.Guests(); !slices.Equal(guests, ids[92:]) {
			t.Errorf("guests are %v, want %v", guests, ids[92:])
		}
		if err := <-v.get(&wg, v.block("for a member"), time.Minute); err != nil {
			t.Error(err)
		}
		time.Sleep(11 * time.Minute)
		if guests := v.host.Guests(); len(guests) != 0 || len(v.host.Peers()) != 1 {
			t.Errorf("in the end guests are %v, peers %v", guests, v.host.Peers())
		}
		wg.Wait()
		v.close()
		for _, h := range hosts {
			h.Close()
		}
	})
}

// TestGoodbye: peers disconnect when they are told goodbye, which takes a round trip or two; one that does not answer is not
// waited for beyond the caller's patience.
func TestGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		v := newVisit(t, transport.Admitted, nil)
		v.connect(v.want)
		other := v.node(func(*Config) {})
		v.connect(other)
		if err := <-v.get(&wg, v.block("one"), time.Minute); err != nil {
			t.Fatal(err)
		}
		got := v.get(&wg, absent(t), 10*time.Second)
		time.Sleep(time.Second)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		v.host.Goodbye(ctx)
		if took := time.Since(begin); took > 10*time.Millisecond {
			t.Errorf("goodbye took %v", took)
		}
		if told := v.told(); !slices.Equal(told, []string{"1 "}) {
			t.Errorf("told %q", told)
		}
		if peers := v.host.Peers(); len(v.want.Peers()) != 0 || len(peers) != 1 || peers[0].ID != other.Self() {
			t.Errorf("connected are %v; only one that has never said anything should be", peers)
		}
		<-got
		v.connect(v.want)
		if err := <-v.get(&wg, v.block("two"), time.Minute); err != nil {
			t.Error(err)
		}
		v.mem.Stall(v.host.Self(), v.want.Self())
		begin = time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		v.host.Goodbye(ctx)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("goodbye to a peer that does not answer took %v", took)
		}
		v.mem.Heal(v.host.Self(), v.want.Self())
		wg.Wait()
		v.close()
	})
}

// absent is a block that nobody has.
func absent(t *testing.T) cid.Cid {
	t.Helper()
	b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, mh.SHA2_256), []byte("nobody has it"))
	if err != nil {
		t.Fatal(err)
	}
	return b.CID()
}

// TestNotify: notes reach a connected peer, also of kinds that it does not know; other peers cannot be told.
func TestNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, transport.Admitted, nil)
		v.connect(v.want)
		if err := v.host.Notify(v.want.Self(), wire.Note{Kind: 77, Data: []byte("hello")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if told := v.told(); !slices.Equal(told, []string{"77 hello"}) {
			t.Errorf("told %q", told)
		}
		if err := v.host.Notify("nobody", wire.Note{Kind: 77}); !errors.Is(err, dray.ErrUnreachable) {
			t.Errorf("told nobody: %v", err)
		}
		if err := v.host.Notify(v.want.Self(), wire.Note{Kind: 77, Data: make([]byte, wire.MaxNote+1)}); err == nil {
			t.Error("told too much")
		}
		v.close()
	})
}
