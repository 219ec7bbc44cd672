package node

import (
	"context"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/store"
	"dray/transport"
	"dray/wire"
)

// plenty is more credit than anybody uses.
const plenty = 1 << 40

// scene is what a liar knows: the file that everybody is after.
type scene struct {
	root     dray.Block
	skeleton []dray.Block // without the root
	leaves   []dray.Block
}

const sceneLeaves = 3000

func (s *scene) all(n int) wire.Bits {
	var w wire.BitsWriter
	w.Add(0, uint32(n))
	return w.Bits()
}

// junk makes blocks that nobody ever asked for.
func junk(t *testing.T, from, n, size int) []dray.Block {
	out := make([]dray.Block, n)
	for i := range out {
		data := make([]byte, size)
		binary.BigEndian.PutUint64(data, uint64(from+i))
		b, err := dray.Hashed(rawPrefix, data)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = b
	}
	return out
}

func carried(blocks []dray.Block) []wire.Block {
	var out []wire.Block
	for _, b := range blocks {
		out = append(out, wire.Block{Prefix: b.CID().Prefix(), Data: b.Data()})
	}
	return out
}

// answers calls on for each walk that a message asks for.
func walksIn(m *wire.Message, on func(id uint32)) {
	for _, w := range m.Walks {
		if !w.Stop {
			on(w.ID)
		}
	}
}

func hello(k *talk) { k.say(wire.Message{Credit: plenty}) }

// TestLiars fetches from an honest peer while one that speaks TensorSwap misbehaves towards both: the transfer completes with
// the right bytes, nothing else is stored, offenders are dropped, and afterwards nobody holds anything of it any more.
func TestLiars(t *testing.T) {
	for _, c := range []struct {
		name   string
		banned bool // by somebody
		deaf   bool // reads nothing
		says   func(s *scene, k *talk)
		hears  func(s *scene, k *talk, m *wire.Message)
	}{
		{name: "says nothing"},
		{name: "gives credit and says nothing more", says: func(_ *scene, k *talk) { hello(k) }},
		{
			name: "answers a walk with blocks of nothing",
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(_ *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) {
					k.say(wire.Message{Blocks: carried(junk(k.l.t, 0, 100, 1000)), Walked: []wire.Walked{{ID: id}}})
				})
			},
		},
		{
			name: "answers a walk with everything but the root",
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) {
					k.say(wire.Message{Blocks: carried(append(s.skeleton, s.leaves...)), Walked: []wire.Walked{{ID: id}}})
				})
			},
		},
		{
			name: "answers a walk without end",
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(_ *scene, k *talk, m *wire.Message) {
				walksIn(m, func(uint32) {
					k.l.wg.Go(func() {
						tick := time.NewTicker(time.Second)
						defer tick.Stop()
						for i := range 200 {
							k.say(wire.Message{Blocks: carried(junk(k.l.t, i, 1, 100))})
							select {
							case <-tick.C:
							case <-k.l.ctx.Done():
								return
							}
						}
					})
				})
			},
		},
		{
			name: "says that a walk was whole and sends nothing",
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(_ *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) { k.say(wire.Message{Walked: []wire.Walked{{ID: id}}}) })
			},
		},
		{
			name: "ends a walk before its blocks come",
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) {
					k.say(wire.Message{Walked: []wire.Walked{{ID: id}}})
					k.blocks(append([]dray.Block{s.root}, s.skeleton...)...)
				})
			},
		},
		{
			name: "ends a walk that nobody asked for", banned: true,
			says: func(_ *scene, k *talk) { k.say(wire.Message{Credit: plenty, Walked: []wire.Walked{{ID: 99}}}) },
		},
		{
			name: "pushes leaves beyond the end", banned: true,
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) {
					k.say(wire.Message{
						Blocks: carried(append([]dray.Block{s.root}, s.skeleton...)),
						Walked: []wire.Walked{{ID: id, Leaves: 5000, Pushed: s.all(5000)}},
					})
				})
			},
		},
		{
			name: "says that it pushes, and sends something else",
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) {
					k.say(wire.Message{
						Blocks: carried(append([]dray.Block{s.root}, s.skeleton...)),
						Walked: []wire.Walked{{ID: id, Leaves: sceneLeaves, Pushed: s.all(100)}},
					})
					k.blocks(junk(k.l.t, 0, 100, 64)...)
				})
			},
		},
		{
			name: "pushes without end", banned: true,
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) {
					k.say(wire.Message{
						Blocks: carried([]dray.Block{s.root}), Walked: []wire.Walked{{ID: id, Leaves: sceneLeaves, Pushed: s.all(10)}},
					})
					k.blocks(junk(k.l.t, 0, 40, 1<<20)...)
				})
			},
		},
		{
			name: "sends blocks that nobody asked for", banned: true,
			says: func(_ *scene, k *talk) { hello(k); k.blocks(junk(k.l.t, 0, 100, 1000)...) },
			hears: func(_ *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) { k.say(wire.Message{Walked: []wire.Walked{{ID: id, Status: wire.WalkAbsent}}}) })
			},
		},
		{
			name: "has everything and sends nothing",
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) { k.say(wire.Message{Walked: []wire.Walked{{ID: id, Status: wire.WalkAbsent}}}) })
				for _, f := range m.Follows {
					if !f.Stop {
						k.say(wire.Message{Haves: []wire.Have{{Feed: f.Feed, Leaves: sceneLeaves, Bits: s.all(sceneLeaves)}}})
					}
				}
			},
		},
		{
			name: "has everything, and nothing when it is asked",
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				walksIn(m, func(id uint32) { k.say(wire.Message{Walked: []wire.Walked{{ID: id, Status: wire.WalkAbsent}}}) })
				var out wire.Message
				for _, f := range m.Follows {
					if !f.Stop {
						out.Haves = append(out.Haves, wire.Have{Feed: f.Feed, Leaves: sceneLeaves, Bits: s.all(sceneLeaves)})
					}
				}
				for _, w := range m.Wants {
					if !w.Cancel {
						out.Presences = append(out.Presences, wire.Presence{CID: w.CID, Leaves: w.Leaves})
					}
				}
				if !out.Empty() {
					k.say(out)
				}
			},
		},
		{
			name: "has leaves of another manifest", banned: true,
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				for _, f := range m.Follows {
					k.say(wire.Message{Haves: []wire.Have{{Feed: f.Feed, Leaves: 4000, Bits: s.all(4000)}}})
				}
			},
		},
		{
			name: "has leaves beyond the manifest", banned: true,
			hears: func(_ *scene, k *talk, m *wire.Message) {
				for _, f := range m.Follows {
					item := binary.AppendUvarint([]byte{1, 0}, uint64(f.Feed))
					item = append(binary.AppendUvarint(item, sceneLeaves), 3, 0xa3, 0xc2, 0x1e) // a million
					k.raw(control(append([]byte{1, 1, 1, 9, byte(len(item))}, item...)))
				}
			},
		},
		{
			name: "tells of a root that it was not asked about", banned: true,
			says: func(s *scene, k *talk) {
				k.say(wire.Message{Credit: plenty, Haves: []wire.Have{{Feed: 77, Leaves: 10, Bits: s.all(10)}}})
			},
		},
		{
			name: "tells of the same leaves over and over", banned: true,
			says: func(_ *scene, k *talk) { hello(k) },
			hears: func(s *scene, k *talk, m *wire.Message) {
				for _, f := range m.Follows {
					for i := range 1000 {
						k.say(wire.Message{Haves: []wire.Have{{Feed: f.Feed, Leaves: sceneLeaves, Lost: i%2 == 1, Bits: s.all(sceneLeaves)}}})
					}
				}
			},
		},
		{
			name: "wants leaves of a root that it was told nothing about", banned: true,
			says: func(_ *scene, k *talk) {
				k.say(wire.Message{Credit: plenty, Wants: []wire.Entry{{Leaves: wire.Leaves{Feed: 1, First: 3}}}})
			},
		},
		{
			name: "wants leaves beyond the manifest", banned: true,
			says: func(s *scene, k *talk) {
				k.say(wire.Message{Credit: plenty, Follows: []wire.Follow{{Feed: 1, Root: s.root.CID()}}})
			},
			hears: func(_ *scene, k *talk, m *wire.Message) {
				for _, h := range m.Haves {
					k.say(wire.Message{Wants: []wire.Entry{{Leaves: wire.Leaves{Feed: h.Feed, First: h.Leaves}}}})
				}
			},
		},
		{
			name: "gives a root two numbers", banned: true,
			says: func(s *scene, k *talk) {
				k.say(wire.Message{Follows: []wire.Follow{{Feed: 1, Root: s.root.CID()}}})
				k.say(wire.Message{Follows: []wire.Follow{{Feed: 2, Root: s.root.CID()}}})
			},
		},
		{
			name: "leaves a number out", banned: true,
			says: func(_ *scene, k *talk) { hello(k); k.put(&wire.Message{Seq: 3, Credit: plenty}) },
		},
		{
			name: "goes on with a message that is not there", banned: true,
			says: func(_ *scene, k *talk) { hello(k); k.put(&wire.Message{Seq: 2, Continues: true, Credit: plenty}) },
		},
		{
			name: "begins anew again and again",
			says: func(s *scene, k *talk) {
				for range 200 {
					k.begin(wire.Message{
						Credit: plenty, Follows: []wire.Follow{{Feed: 1, Root: s.root.CID()}},
						Wants: []wire.Entry{{CID: s.leaves[7].CID(), SendDontHave: true}},
					})
				}
			},
		},
		{
			name: "begins anew with other walks and reads nothing", deaf: true,
			says: func(s *scene, k *talk) {
				id := uint32(0)
				for range 500 {
					m := wire.Message{Credit: plenty}
					for range 4 {
						id++
						m.Walks = append(m.Walks, wire.Walk{ID: id, Root: s.root.CID(), Bytes: 64 << 20, Leaves: true})
					}
					for _, b := range s.leaves[:1000] {
						m.Wants = append(m.Wants, wire.Entry{CID: b.CID()})
					}
					k.begin(m)
				}
			},
		},
		{
			name: "wants everything and gives no credit",
			says: func(s *scene, k *talk) {
				var m wire.Message
				for _, b := range s.leaves[:1000] {
					m.Wants = append(m.Wants, wire.Entry{CID: b.CID(), SendDontHave: true})
				}
				m.Walks = []wire.Walk{{ID: 1, Root: s.root.CID(), Bytes: 64 << 20, Push: 64 << 20}}
				k.say(m)
			},
		},
		{
			name: "wants everything and reads nothing", deaf: true,
			says: func(s *scene, k *talk) {
				m := wire.Message{Credit: plenty}
				for _, b := range s.leaves[:1000] {
					m.Wants = append(m.Wants, wire.Entry{CID: b.CID(), SendDontHave: true})
				}
				for i := range 4 {
					m.Walks = append(m.Walks, wire.Walk{ID: uint32(i + 1), Root: s.root.CID(), Bytes: 64 << 20, Leaves: true})
				}
				k.say(m)
			},
		},
		{
			name: "floods with walks", banned: true,
			says: func(s *scene, k *talk) {
				hello(k)
				for i := range 10 {
					var m wire.Message
					for j := range 1000 {
						m.Walks = append(m.Walks, wire.Walk{ID: uint32(1000*i + j + 1), Root: s.root.CID(), Bytes: 64 << 20, Leaves: true})
					}
					k.say(m)
				}
			},
		},
		{
			name: "begins and stops walks",
			says: func(s *scene, k *talk) {
				hello(k)
				for i := range 10 {
					for j := range 20 {
						id := uint32(20*i + j + 1)
						k.say(wire.Message{Walks: []wire.Walk{{ID: id, Root: s.root.CID(), Bytes: 64 << 20, Leaves: true}}})
						k.say(wire.Message{Walks: []wire.Walk{{ID: id, Stop: true}}})
					}
				}
			},
		},
		{
			name: "walks and is gone",
			says: func(s *scene, k *talk) {
				k.say(wire.Message{Credit: plenty, Walks: []wire.Walk{{ID: 1, Root: s.root.CID(), Bytes: 64 << 20, Leaves: true}}})
				tick := time.NewTimer(11 * time.Millisecond)
				defer tick.Stop()
				<-tick.C
				k.conn.Close()
			},
		},
		{
			name: "follows ten thousand roots",
			says: func(s *scene, k *talk) {
				var m wire.Message
				for i, b := range junk(k.l.t, 1, 10_000, 16) {
					m.Follows = append(m.Follows, wire.Follow{Feed: uint32(i + 1), Root: b.CID()})
				}
				k.say(m)
			},
		},
		{
			name: "follows and stops", says: func(s *scene, k *talk) {
				for i, b := range junk(k.l.t, 1, 10_000, 16) {
					k.say(wire.Message{Follows: []wire.Follow{{Feed: uint32(i + 1), Root: b.CID()}}})
					k.say(wire.Message{Follows: []wire.Follow{{Feed: uint32(i + 1), Root: b.CID(), Stop: true}}})
				}
			},
		},
		{
			name: "sends an oversized control frame", banned: true,
			says: func(_ *scene, k *talk) { k.beside(head(0, wire.MaxFrameSize)) },
		},
		{
			name: "sends an oversized data frame", banned: true,
			says: func(_ *scene, k *talk) { k.beside(head(1, dray.MaxBlockSize+1)) },
		},
		{
			name: "sends a frame of no kind", banned: true,
			says: func(_ *scene, k *talk) { k.beside(head(7, 100)) },
		},
		{
			name: "sends sections that are none", banned: true,
			says: func(_ *scene, k *talk) { k.beside(control([]byte{0x55, 1, 0})) },
		},
		{
			name: "sends a block of a hash that proves nothing", banned: true,
			says: func(_ *scene, k *talk) {
				frame := binary.LittleEndian.AppendUint64(head(1, 4), 0)
				frame = append(frame, 1, 0x55, 0, 4) // the identity function
				frame = append(frame, make([]byte, 12)...)
				k.beside(append(frame, "data"...))
			},
		},
		{
			name: "begins a frame and goes",
			says: func(_ *scene, k *talk) {
				k.raw(head(0, 1000))
				k.l.wg.Go(func() {
					s, err := k.conn.Open(k.l.ctx, wire.ProtocolSwap1)
					if err == nil {
						s.Write(head(1, 1000))
						s.Close()
					}
				})
			},
		},
		{
			name: "begins frames on many streams and stops",
			says: func(_ *scene, k *talk) {
				for range 40 {
					k.beside(head(1, dray.MaxBlockSize))
				}
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := transport.NewMemory(transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: gigabit})
				s := &scene{}
				l := newLiar(t, mem)
				l.deaf = c.deaf
				if c.says != nil {
					l.says = func(k *talk) { c.says(s, k) }
				}
				if c.hears != nil {
					l.hears = func(k *talk, m *wire.Message) { c.hears(s, k, m) }
				}
				lied(t, mem, s, l, c.banned)
			})
		})
	}
}

// head begins a frame of a kind.
func head(kind byte, body int) []byte {
	return binary.LittleEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(body))
}

// control is a control frame of some sections.
func control(sections []byte) []byte { return append(head(0, len(sections)), sections...) }

func lied(t *testing.T, mem *transport.Memory, s *scene, l *liar, banned bool) {
	var nodes []*Node
	var nets []transport.Network
	var stores []*store.Mem
	for range 2 {
		net, st := mem.NewHost(), store.NewMem(0)
		n, err := New(Config{Store: st, Network: net})
		if err != nil {
			t.Fatal(err)
		}
		nodes, nets, stores = append(nodes, n), append(nets, net), append(stores, st)
	}
	seed, getter := nodes[0], nodes[1]
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	root := tinyTree(t, ctx, seed, sceneLeaves)
	for st := range seed.Store().All(ctx) {
		b, err := seed.Store().Get(ctx, st.CID)
		switch {
		case err != nil:
			t.Fatal(err)
		case string(st.CID.Hash()) == string(root.Hash()):
			s.root = mustBlock(t, root, b)
		case st.Size == 64:
			s.leaves = append(s.leaves, b)
		default:
			s.skeleton = append(s.skeleton, mustBlock(t, cid.NewCidV1(cid.DagProtobuf, st.CID.Hash()), b))
		}
	}
	bad := transport.Peer{ID: l.net.Self(), Addrs: l.net.Addrs()}
	for _, n := range []*Node{getter, seed} {
		if err := n.Connect(ctx, bad); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	p, err := getter.Fetch(ctx, FetchConfig{Root: root, Peers: []transport.Peer{bad, peerOf(seed)}})
	if err != nil {
		t.Fatalf("%v %+v", err, p)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
	if p.Leaves != sceneLeaves {
		t.Errorf("%d leaves", p.Leaves)
	}
	for st, err := range stores[1].All(ctx) {
		if _, serr := stores[0].Stat(ctx, st.CID); err != nil || serr != nil {
			t.Errorf("the getter stored %v, which nobody asked for (%v)", st.CID, err)
		}
	}
	if stores[1].Len() != stores[0].Len() {
		t.Errorf("%d blocks came of %d", stores[1].Len(), stores[0].Len())
	}
	if got := getter.Totals().Banned + seed.Totals().Banned; (got > 0) != banned {
		t.Errorf("banned %d peers, want a ban: %v", got, banned)
	}
	for _, n := range nodes {
		if r := n.rest(); r.held.Serving > 32<<20 || r.jobs > 10_000 || r.walkers > 8 {
			t.Errorf("holds %+v", r)
		}
	}
	l.close()
	wantRest(t, "the getter", getter)
	wantRest(t, "the seed", seed)
	for i, n := range nodes {
		n.Close()
		nets[i].Close()
	}
}

// mustBlock is b under the CID c, which has the same hash.
func mustBlock(t *testing.T, c cid.Cid, b dray.Block) dray.Block {
	out, err := dray.NewBlock(c, b.Data())
	if err != nil {
		t.Fatal(err)
	}
	return out
}
