package meter

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"dray/exchange/health"
	"dray/node"
)

// counted is what a node has counted, read when somebody asks.
type counted struct{ m *Meter }

func about(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dray_"+name, help, labels, nil)
}

var (
	buildInfo  = about("build_info", "Which build runs: 1.", "version")
	wireBytes  = about("wire_bytes_total", "Bytes that passed sockets, everything included that is their payload.", "transport", "direction")
	blocks     = about("blocks_total", "Blocks that were exchanged with peers.", "direction")
	blockBytes = about("block_bytes_total", "Bytes of blocks that were exchanged with peers.", "direction")
	twice      = about("duplicate_bytes_total", "Bytes of blocks that came although they were here already.")
	uninvited  = about("uninvited_blocks_total", "Blocks that nobody had asked for.")
	stalls     = about("stalls_total", "Times that a peer let patience run out.")
	refused    = about("refused_wants_total", "Wants of peers beyond what one may have.")
	bans       = about("bans_total", "Peers that were dropped for an offence.")
	peers      = about("peers", "Connected peers, by what leads to them.", "path", "transport")
	healths    = about("peer_health", "Peers, by what is thought of them.", "state")
	mode       = about("mode", "How many peers there are to rely on: 1 for the mode that holds.", "mode")
	partition  = about("partition", "Whether the network looks cut: 1 for the state that holds.", "state")
	condition  = about("component_condition", "How a part fares: 1 for what holds.", "component", "condition")
	running    = about("transfers", "Transfers that run, by kind.", "kind")
	stalled    = about("transfers_stalled", "Transfers that run and to which nothing has come for a while.")
	storeBytes = about("store_bytes_total", "Bytes of blocks that the store read and wrote for the exchange.", "operation")
	storeTime  = about("store_seconds_total", "Time that took, added up over the workers.", "operation")
	hashBytes  = about("hashed_bytes_total", "Bytes that were hashed.")
	hashTime   = about("hash_seconds_total", "Time that took, added up over the workers.")
	behind     = about("behind_seconds_total", "Time in which streams were not read because too much had come, added up over them.")
	idle       = about("loop_idle_seconds_total", "Time in which the node's loop had nothing to do.")
	held       = about("store_held_bytes", "Bytes that the store holds: its own copies, and what lies in the user's files.", "where")
	quota      = about("store_quota_bytes", "The bound on the store's own copies; 0 is none.")
	free       = about("disk_free_bytes", "Bytes that the disk has left.")
)

var all = []*prometheus.Desc{
	buildInfo, wireBytes, blocks, blockBytes, twice, uninvited, stalls, refused, bans, peers, healths, mode, partition, condition,
	running, stalled, storeBytes, storeTime, hashBytes, hashTime, behind, idle, held, quota, free,
}

// Describe implements [prometheus.Collector].
func (c *counted) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

// storageTime bounds how long a scrape waits for what the store holds.
const storageTime = 2 * time.Second

// Collect implements [prometheus.Collector].
func (c *counted) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(buildInfo, 1, c.m.cfg.Version)
	if c.m.cfg.Wire != nil {
		for _, w := range c.m.cfg.Wire() {
			count(wireBytes, float64(w.In), w.Transport, "in")
			count(wireBytes, float64(w.Out), w.Transport, "out")
		}
	}
	if c.m.cfg.Storage != nil {
		ctx, cancel := context.WithTimeout(context.Background(), storageTime)
		s, err := c.m.cfg.Storage(ctx)
		cancel()
		if err == nil {
			gauge(held, float64(s.Own), "own")
			gauge(held, float64(s.Referenced), "referenced")
			gauge(quota, float64(s.Quota))
			gauge(free, float64(s.Free))
		}
	}
	n := c.m.node.Load()
	if n == nil {
		ch <- prometheus.NewInvalidMetric(blocks, errNoNode)
		return
	}
	collectTotals(n, count)
	collectPeers(n, gauge)
	collectTransfers(n, gauge)
	_, parts := n.Vitals()
	for i := range parts {
		for x := node.Unknown; x <= node.Failed; x++ {
			gauge(condition, boolean(parts[i].Condition == x), parts[i].Name, x.String())
		}
	}
}

type put func(d *prometheus.Desc, v float64, labels ...string)

func collectTotals(n *node.Node, count put) {
	t, l := n.Totals(), n.Load()
	count(blocks, float64(t.Blocks), "in")
	count(blocks, float64(t.Served), "out")
	count(blockBytes, float64(t.Bytes), "in")
	count(blockBytes, float64(t.ServedBytes), "out")
	count(twice, float64(t.DuplicateBytes))
	count(uninvited, float64(t.Uninvited))
	count(stalls, float64(t.Stalls))
	count(refused, float64(t.Refused))
	count(bans, float64(t.Banned))
	count(storeBytes, float64(l.Read), "read")
	count(storeBytes, float64(l.Written), "write")
	count(storeTime, l.ReadTime.Seconds(), "read")
	count(storeTime, l.WriteTime.Seconds(), "write")
	count(hashBytes, float64(l.Hashed))
	count(hashTime, l.HashTime.Seconds())
	count(behind, l.Behind.Seconds())
	count(idle, l.LoopIdle.Seconds())
}

func collectPeers(n *node.Node, gauge put) {
	type path struct{ path, transport string }
	by := make(map[path]int)
	states := make(map[health.State]int)
	for _, p := range n.Peers() {
		x := path{"direct", p.Info.Transport}
		if p.Info.Relayed {
			x.path = "relayed"
		}
		by[x]++
		states[p.Health.State]++
	}
	for _, p := range n.Absent() {
		states[p.Health.State]++
	}
	// All series are there always: a gauge that goes away looks like a scrape that failed.
	for _, t := range []string{"tcp", "quic-v1", "ws", "webtransport"} {
		for _, p := range []string{"direct", "relayed"} {
			x := path{p, t}
			gauge(peers, float64(by[x]), p, t)
			delete(by, x)
		}
	}
	rest := 0
	for _, n := range by {
		rest += n
	}
	gauge(peers, float64(rest), "direct", "other")
	for s := health.Unknown; s <= health.Gone; s++ {
		gauge(healths, float64(states[s]), label(s))
	}
	state, now := n.Outlook()
	for x := health.Whole; x <= health.Recovering; x++ {
		gauge(partition, boolean(x == state), label(x))
	}
	for x := health.Normal; x <= health.Emergency; x++ {
		gauge(mode, boolean(x == now), label(x))
	}
}

func collectTransfers(n *node.Node, gauge put) {
	kinds := make(map[node.TransferKind]int)
	silent, now := 0, time.Now()
	for _, t := range n.Transfers().Running {
		kinds[t.Kind]++
		if t.Stalled(now) > 0 {
			silent++
		}
	}
	for _, k := range []node.TransferKind{
		node.KindFetch, node.KindPart, node.KindStream, node.KindGraph, node.KindSession, node.KindOutside,
	} {
		gauge(running, float64(kinds[k]), string(k))
	}
	gauge(stalled, float64(silent))
}

// label writes a state as labels are: BackedOff is backed_off.
func label(s fmt.Stringer) string {
	var b strings.Builder
	for i, r := range s.String() {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
