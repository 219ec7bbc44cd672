package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/store"
	"dray/transport"
)

// slowStore writes so many bytes a second on each worker.
type slowStore struct {
	dray.Store
	rate float64
}

// Put takes its time, which only passes in a synctest bubble.
func (s *slowStore) Put(ctx context.Context, blocks ...dray.Block) error {
	for _, b := range blocks {
		time.Sleep(time.Duration(float64(b.Size()) / s.rate * float64(time.Second)))
	}
	return s.Store.Put(ctx, blocks...)
}

// diagnosed is a set-up and what is to be said of it.
type diagnosed struct {
	name         string
	link         transport.MemoryConfig
	cfg          Config
	limit        exchange.Limits
	hosts, lacks int // that have it, and that have nothing
	want         Resource
	check        func(t *testing.T, m *Measures)
}

// measure fetches size bytes for ten seconds in the set-up.
func (row *diagnosed) measure(t *testing.T, size int) Measures {
	ctx := context.Background()
	mem := transport.NewMemory(row.link)
	var root cid.Cid
	var peers []transport.Peer
	var closing []func()
	defer func() {
		for _, f := range closing {
			f()
		}
	}()
	path, _ := randomFile(t, size)
	begin := func(cfg Config) *Node {
		net := mem.NewHost()
		cfg.Network = net
		if cfg.Store == nil {
			cfg.Store = store.NewMem(0)
		}
		n, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		closing = append(closing, func() {
			n.Close()
			net.Close()
		})
		return n
	}
	for i := range row.hosts + row.lacks {
		n := begin(Config{})
		if i < row.hosts {
			added, err := n.Add(ctx, path, AddConfig{Copy: true})
			if err != nil {
				t.Fatal(err)
			}
			root = added.Root
		}
		peers = append(peers, peerOf(n))
	}
	if !root.Defined() {
		root = listNode(t, 1, cid.Undef).CID() // which nobody has
	}
	n := begin(row.cfg)
	n.ask(func() { n.engine.SetLimits(n.now(), row.limit) })
	m, err := n.Diagnose(ctx, DiagnoseConfig{Fetch: FetchConfig{Root: root, Peers: peers}})
	if err != nil && row.want != LimitNobody {
		t.Fatal(err)
	}
	return m
}

// rateIs expects the transfer to have gone at about so many bytes a second.
func rateIs(t *testing.T, m *Measures, want float64) {
	t.Helper()
	if m.Rate < 0.8*want || m.Rate > 1.2*want {
		t.Errorf("%.1f MB/s were measured, want %.1f", m.Rate/1e6, want/1e6)
	}
}

// TestDiagnose: real transfers, in virtual time, each limited by one thing. What it says is that one, from what was measured.
func TestDiagnose(t *testing.T) {
	const size = 64 << 20
	fast := transport.MemoryConfig{Latency: time.Millisecond, Bandwidth: 400e6}
	for _, row := range []diagnosed{
		{
			name: "the uplink of a peer", link: transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: 4e6}, hosts: 1, want: LimitUplink,
			check: func(t *testing.T, m *Measures) { rateIs(t, m, 4e6) },
		},
		{
			name: "the uplinks of three peers", link: transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: 3e6}, hosts: 3, want: LimitUplink,
			check: func(t *testing.T, m *Measures) {
				rateIs(t, m, 9e6)
				if m.Peers != 3 {
					t.Errorf("%d peers delivered", m.Peers)
				}
			},
		},
		{
			name: "one holder among peers that have nothing", link: transport.MemoryConfig{Latency: 5 * time.Millisecond, Bandwidth: 4e6}, hosts: 1, lacks: 2,
			want: LimitHolders,
		},
		{
			name: "this host's disk", link: fast, cfg: Config{Store: &slowStore{store.NewMem(0), 2e6}, Workers: 2}, hosts: 1, want: LimitDisk,
			check: func(t *testing.T, m *Measures) { rateIs(t, m, 4e6) },
		},
		{
			name: "a small window over a long link", link: transport.MemoryConfig{Latency: 50 * time.Millisecond, Bandwidth: 400e6},
			cfg: Config{Engine: exchange.Config{Window: 1 << 20}}, hosts: 1, want: LimitWindow,
			check: func(t *testing.T, m *Measures) {
				if m.RTT < 90*time.Millisecond || m.RTT > 200*time.Millisecond {
					t.Errorf("the round trip is %v", m.RTT)
				}
			},
		},
		{
			name: "this host's own limit", link: fast, limit: exchange.Limits{Down: 3e6}, hosts: 1, want: LimitOwn,
			check: func(t *testing.T, m *Measures) { rateIs(t, m, 3e6) },
		},
		{name: "nobody has it", link: fast, hosts: 0, lacks: 1, want: LimitNobody},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := row.measure(t, size)
				if got := m.Verdict(); got != row.want {
					t.Errorf("limited by %v, want %v: %+v", got, row.want, m)
				}
				if row.check != nil {
					row.check(t, &m)
				}
				t.Logf("%v: %.1f MB/s, queue %v, round trip %v, behind %.2f, full %.2f, limited %.2f", m.Verdict(), m.Rate/1e6, m.Queue(), m.RTT, m.Behind, m.Full, m.Limited)
				for _, s := range m.Shares() {
					if s.Share < 0 || s.Share > 1 {
						t.Errorf("%v has a share of %v", s.Resource, s.Share)
					}
				}
			})
		})
	}
}
