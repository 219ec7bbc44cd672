package sim

import (
	"fmt"
	"math"
	"testing"
	"time"

	"dray/exchange"
	"dray/wire"
)

// market is one host in the middle and others around it, who fetch from it or have what it fetches.
type market struct {
	w      *World
	mid    *Host
	others []*Host
}

// newMarket connects n hosts to one. With serves, each of them fetches a file of its own from the one; else the one
// fetches a file of each of them, or a single one that all of them have.
func newMarket(t *testing.T, seed uint64, n int, serves, own bool, v wire.Version, blockSize func(i int) int, cfg exchange.Config) *market {
	t.Helper()
	w := NewWorld(Config{Seed: seed, Virtual: true, CheckEvery: 300, Thin: true})
	m := &market{w: w, mid: w.Add(HostConfig{Version: v, Engine: cfg})}
	each := 640 << 20
	if !own {
		each *= 4
	}
	var file *Root
	for i := range n {
		o := w.Add(HostConfig{Version: v, Delay: time.Duration(1+i) * time.Millisecond})
		m.others = append(m.others, o)
		size := 256 << 10
		if blockSize != nil {
			size = blockSize(i)
		}
		if file == nil || own {
			file = w.Root(w.File(each/size, size), 1)
		}
		holder := o
		if serves {
			holder = m.mid
		}
		holder.Give(file.leaves...)
		holder.Give(file.ref)
		w.Connect(m.mid, o)
		if serves || own {
			m.fetch(map[bool]*Host{true: o, false: m.mid}[serves], file, v)
		}
	}
	if !serves && !own {
		m.fetch(m.mid, file, v)
	}
	return m
}

func (m *market) fetch(h *Host, file *Root, v wire.Version) {
	m.w.After(10*time.Millisecond, func() {
		c := FetchConfig{Root: file}
		if !v.Indexes() {
			c = FetchConfig{Blocks: file.leaves, Window: 512, Sized: true}
		}
		h.Fetch(c)
	})
}

// during runs for d and returns what passed on the lines of the one, and between it and each other.
func (m *market) during(t *testing.T, d time.Duration) (up, down float64, gave, got []float64) {
	t.Helper()
	before := m.mid.Totals()
	gave, got = make([]float64, len(m.others)), make([]float64, len(m.others))
	for i, o := range m.others {
		g, r := m.mid.Passed(o)
		gave[i], got[i] = -float64(g), -float64(r)
	}
	m.w.Run(m.w.Now()+d, nil)
	if err := m.w.Err(); err != nil {
		t.Fatal(err)
	}
	after := m.mid.Totals()
	for i, o := range m.others {
		g, r := m.mid.Passed(o)
		gave[i] += float64(g)
		got[i] += float64(r)
	}
	return float64(after.Up - before.Up), float64(after.Down - before.Down), gave, got
}

func within(t *testing.T, what string, got, want, off float64) {
	t.Helper()
	if math.Abs(got/want-1) > off {
		t.Errorf("%s: %.0f, which is %.3f of %.0f", what, got, got/want, want)
	}
}

var bothProtocols = map[string]wire.Version{"bitswap": wire.V120, "tensorswap": wire.Swap1}

// TestLimits holds every limit within 5 % over 10 s, as measured on the line, headers and all (A47).
func TestLimits(t *testing.T) {
	const rate = 10e6
	for name, v := range bothProtocols {
		for _, n := range []int{1, 8} {
			for _, c := range []struct {
				name   string
				serves bool
				own    bool
				limits exchange.Limits
			}{
				{"up", true, true, exchange.Limits{Up: rate}},
				{"down", false, false, exchange.Limits{Down: rate}},
				{"down, own files", false, true, exchange.Limits{Down: rate}},
				{"peer up", true, true, exchange.Limits{PeerUp: rate}},
				{"peer down", false, true, exchange.Limits{PeerDown: rate}},
				{"peer down of one file", false, false, exchange.Limits{PeerDown: rate}},
				{"both up", true, true, exchange.Limits{Up: 4 * rate, PeerUp: rate}},
			} {
				t.Run(fmt.Sprintf("%s/%d/%s", name, n, c.name), func(t *testing.T) {
					m := newMarket(t, 1, n, c.serves, c.own, v, nil, exchange.Config{Limits: c.limits})
					m.during(t, time.Second)
					up, down, gave, got := m.during(t, 10*time.Second)
					line, each := up, gave
					if !c.serves {
						line, each = down, got
					}
					all := float64(n) * rate
					if l := max(c.limits.Up, c.limits.Down); l > 0 {
						all = min(float64(l), all)
						if c.limits.PeerUp == 0 {
							all = float64(l)
						}
					}
					within(t, "the line", line, 10*all, 0.05)
					for i, x := range each {
						if c.limits.PeerUp+c.limits.PeerDown > 0 && x > 10*rate*1.05 {
							t.Errorf("peer %d: %.0f bytes, more than %.0f", i, x, 10*rate)
						}
						if c.own && x < 0.94*10*all/float64(n) {
							t.Errorf("peer %d: %.0f bytes, of %.0f that are its share", i, x, 10*all/float64(n))
						}
					}
					for _, h := range m.w.Hosts() {
						if s := h.Totals(); s.Stalls > 0 || s.Banned > 0 {
							t.Errorf("%s saw %d stalls and banned %d", h.name, s.Stalls, s.Banned)
						}
					}
				})
			}
		}
	}
}

// TestServices share a saturated link 1:2:4, and a change of service takes effect at once (A47).
func TestServices(t *testing.T) {
	for name, v := range bothProtocols {
		for _, size := range []int{64 << 10, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				m := newMarket(t, 1, 4, true, true, v, func(int) int { return size }, exchange.Config{Limits: exchange.Limits{Up: 20e6}})
				for i, s := range []exchange.Service{
					exchange.ServiceBestEffort, exchange.ServiceNormal, exchange.ServiceHigh, exchange.ServiceCritical,
				} {
					m.mid.SetService(m.others[i], s)
				}
				m.during(t, 2*time.Second)
				up, _, gave, _ := m.during(t, 20*time.Second)
				within(t, "the line", up, 20*20e6, 0.05)
				for i, share := range []float64{0.5, 1, 2, 4} {
					within(t, fmt.Sprintf("a share of %v", share), gave[i], 20*20e6*share/7.5, 0.07)
				}
				m.mid.SetService(m.others[3], exchange.ServiceBestEffort)
				m.mid.SetService(m.others[0], exchange.ServiceCritical)
				m.during(t, time.Second)
				_, _, gave, _ = m.during(t, 20*time.Second)
				for i, share := range []float64{4, 1, 2, 0.5} {
					within(t, fmt.Sprintf("after the change, a share of %v", share), gave[i], 20*20e6*share/7.5, 0.07)
				}
			})
		}
	}
}

// TestServicesOfLimits scale the limit of each peer.
func TestServicesOfLimits(t *testing.T) {
	m := newMarket(t, 1, 3, true, true, wire.Swap1, nil, exchange.Config{Limits: exchange.Limits{PeerUp: 4e6}})
	m.mid.SetService(m.others[0], exchange.ServiceBestEffort)
	m.mid.SetService(m.others[2], exchange.ServiceCritical)
	m.during(t, time.Second)
	_, _, gave, _ := m.during(t, 10*time.Second)
	for i, share := range []float64{0.5, 1, 4} {
		within(t, fmt.Sprintf("a share of %v", share), gave[i], 10*4e6*share, 0.05)
	}
	m.mid.SetService(m.others[2], exchange.ServiceNormal)
	m.during(t, time.Second)
	_, _, gave, _ = m.during(t, 10*time.Second)
	within(t, "the one that was critical", gave[2], 10*4e6, 0.05)
}

// TestLimitLive changes a limit while it is used: up, down, off and on.
func TestLimitLive(t *testing.T) {
	for _, serves := range []bool{true, false} {
		m := newMarket(t, 1, 2, serves, true, wire.Swap1, nil, exchange.Config{})
		for _, rate := range []int64{5e6, 20e6, 2e6, 10e6} {
			m.mid.SetLimits(exchange.Limits{Up: rate, Down: rate})
			m.during(t, 2*time.Second)
			up, down, _, _ := m.during(t, 10*time.Second)
			line := up
			if !serves {
				line = down
			}
			within(t, fmt.Sprintf("at %d", rate), line, float64(10*rate), 0.05)
		}
		m.mid.SetLimits(exchange.Limits{})
		m.during(t, 100*time.Millisecond)
		up, down, _, _ := m.during(t, time.Second)
		if line := max(up, down); line < 0.8*Gbit {
			t.Errorf("without a limit, %.0f a second", line)
		}
	}
}

// TestServeByteFair: of peers of one service each gets the same bytes of a saturated host, though one has blocks
// sixteen times as large, and one many more sessions (B10).
func TestServeByteFair(t *testing.T) {
	for name, v := range bothProtocols {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t, 1, 4, true, true, v, func(i int) int { return []int{64 << 10, 1 << 20, 64 << 10, 64 << 10}[i] },
				exchange.Config{Limits: exchange.Limits{Up: 40e6}})
			for range 5 {
				r := m.w.Root(m.w.File(4096, 64<<10), 1)
				m.mid.Give(r.leaves...)
				m.mid.Give(r.ref)
				m.fetch(m.others[3], r, v)
			}
			m.during(t, time.Second)
			_, _, gave, _ := m.during(t, 10*time.Second)
			for i, x := range gave {
				within(t, fmt.Sprintf("peer %d", i), x, 10*40e6/4, 0.05)
			}
		})
	}
}

// TestLeecher: while there is not enough for all, one that gives gets at least 1.5 times what one gets that only takes,
// who still gets something in every second; while there is enough both get the same (B12, A48, invariant 12).
func TestLeecher(t *testing.T) {
	for name, v := range bothProtocols {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t, 1, 3, true, true, v, nil, exchange.Config{Limits: exchange.Limits{Up: 12e6}})
			back := m.w.Root(m.w.File(2560, 256<<10), 1) // what the first gives for it
			m.others[0].Give(back.leaves...)
			m.others[0].Give(back.ref)
			m.fetch(m.mid, back, v)
			m.mid.e.SetLimits(m.w.now, exchange.Limits{Up: 12e6, Down: 6e6})
			m.during(t, 6*time.Second)
			var sum [3]float64
			for range 20 {
				_, _, gave, _ := m.during(t, time.Second)
				for i, x := range gave {
					if x == 0 {
						t.Errorf("at %v peer %d got nothing for a second", m.w.Now(), i)
					}
					sum[i] += x
				}
			}
			for _, i := range []int{1, 2} {
				if r := sum[0] / sum[i]; r < 1.5 {
					t.Errorf("the peer that gives got %.2f times what one gets that only takes", r)
				}
			}
			m.mid.SetLimits(exchange.Limits{PeerUp: 3e6, Down: 6e6}) // enough for all: nobody waits for anybody
			m.during(t, time.Second)
			_, _, gave, _ := m.during(t, 10*time.Second)
			for i, x := range gave {
				within(t, fmt.Sprintf("without contention, peer %d", i), x, 10*3e6, 0.05)
			}
		})
	}
}

// TestLimitsEnd: whatever the limits, everybody has everything in the end, and as soon as the limits allow (invariants
// 11, 12).
func TestLimitsEnd(t *testing.T) {
	for seed := range uint64(6) {
		v := []wire.Version{wire.V110, wire.V120, wire.Swap1}[seed%3]
		host := HostConfig{Version: v, Engine: exchange.Config{Limits: exchange.Limits{Up: 3e6, Down: 2e6, PeerUp: 1e6, PeerDown: 1500e3}}}
		twice(t, SwarmConfig{
			World: Config{Seed: seed + 1, Virtual: true, CheckEvery: 5}, Seeds: 2, Getters: 5, Blocks: 96, BlockSize: 128 << 10,
			Rooted: v.Indexes(), Host: host, Order: exchange.Order(seed / 3),
			Disturb: func(w *World, seeds, getters []*Host) {
				for range 20 {
					w.After(w.between(0, 12*time.Second), func() {
						h := w.hosts[w.rand.IntN(len(w.hosts))]
						o := w.hosts[w.rand.IntN(len(w.hosts))]
						draw := func() int64 {
							if w.chance(0.3) {
								return 0
							}
							return 300e3 + w.rand.Int64N(4e6)
						}
						h.SetLimits(exchange.Limits{Up: draw(), Down: draw(), PeerUp: draw(), PeerDown: draw()})
						if o != h {
							h.SetService(o, exchange.Service(w.rand.IntN(4)))
						}
					})
				}
			},
		})
	}
}
