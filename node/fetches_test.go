package node

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/exchange"
	"dray/transport"
	"dray/unixfs"
)

// given adds up what a transfer's sources gave.
func given(t *Transfer) (sum int64) {
	for _, g := range t.Gifts {
		sum += g.Bytes
	}
	return sum
}

// TestTransfers follows fetches of which some bytes are here before: every byte that is in its place is somebody's gift.
func TestTransfers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mem := transport.NewMemory(transport.MemoryConfig{})
	a, b := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	path, _ := randomFile(t, 12<<20)
	added, err := a.Add(ctx, path, AddConfig{Profile: unixfs.Profiles()[0]})
	if err != nil {
		t.Fatal(err)
	}
	from := []transport.Peer{{ID: a.Self(), Addrs: a.Addrs()}}
	out := filepath.Join(t.TempDir(), "out")
	half, stop := context.WithCancel(ctx)
	seen := 0
	_, err = b.Fetch(half, FetchConfig{
		Root: added.Root, Path: out, Peers: from, Origin: Origin{Who: "get", Name: "first"},
		Progress: func(p Progress) {
			for _, r := range b.Transfers().Running {
				seen++
				if r.Origin.Name != "first" || r.Kind != KindFetch || r.State != TransferRunning || r.Progress.Done > p.Done {
					t.Errorf("%+v does not tell of %+v", r, p)
				}
			}
			if p.Done > 2<<20 {
				stop()
			}
		},
	})
	stop()
	if seen == 0 || err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("seen %d times, %v", seen, err)
	}
	list := b.Transfers()
	if len(list.Running) != 0 || len(list.Ended) != 1 {
		t.Fatalf("%d run and %d have ended, want 0 and 1", len(list.Running), len(list.Ended))
	}
	first := list.Ended[0]
	if given(&first) != first.Progress.Done {
		t.Fatalf("%+v: the gifts are %d of %d", first, given(&first), first.Progress.Done)
	}
	p, err := b.Fetch(ctx, FetchConfig{Root: added.Root, Path: out, Peers: from, Origin: Origin{Who: "get", Name: "again"}})
	if err != nil {
		t.Fatal(err)
	}
	last := b.Transfers().Ended[0]
	if last.State != TransferDone || last.Origin.Name != "again" || last.ID <= first.ID || last.Progress.Done != 12<<20 ||
		given(&last) != last.Progress.Done {
		t.Fatalf("%+v, of which %d were given", last, given(&last))
	}
	for _, g := range last.Gifts {
		if want := map[GiftKind]int64{GiftHere: p.Reused, GiftPeer: p.Done - p.Reused}[g.Kind]; g.Bytes != want {
			t.Errorf("%+v, want %d", g, want)
		}
	}
	whole, m, ok := b.Transfer(last.ID, 16)
	if !ok || whole.ID != last.ID || m.Leaves == 0 {
		t.Fatalf("%+v has no pieces", whole)
	}
	leaves, reused := 0, 0
	for _, c := range m.Cells {
		if c.Here != c.Leaves || c.From != a.Self() && c.Reused < c.Here {
			t.Errorf("%+v: all is here, from the one peer or from before", c)
		}
		leaves += c.Leaves
		reused += c.Reused
	}
	if leaves != m.Leaves || (reused > 0) != (p.Reused > 0) {
		t.Errorf("%d leaves of %d in the cells, %d reused, of %d bytes", leaves, m.Leaves, reused, p.Reused)
	}
	if _, _, ok := b.Transfer(last.ID+1, 16); ok {
		t.Error("there is a transfer that was never begun")
	}
	kinds := map[RecordKind]int{}
	for _, r := range b.Records(0, 100) {
		kinds[r.Kind]++
	}
	if kinds[RecordConnected] == 0 || kinds[RecordBegun] != 2 || kinds[RecordEnded] != 2 {
		t.Errorf("records %v, want a connection and two transfers that began and ended", kinds)
	}
}

// TestTransferOfOneBlock gets a file that is its own skeleton: who gave that gave the file.
func TestTransferOfOneBlock(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	a, b := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	fetchAndCompare(t, a, b, unixfs.Profiles()[0], 1000)
	e := b.Transfers().Ended[0]
	if len(e.Gifts) != 1 || e.Gifts[0].Peer != a.Self() || e.Gifts[0].Bytes != 1000 {
		t.Errorf("%+v, want a thousand bytes of the one peer", e.Gifts)
	}
}

// TestTransferKinds lets every call stand in the list.
func TestTransferKinds(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mem := transport.NewMemory(transport.MemoryConfig{})
	a, b := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	path, _ := randomFile(t, 3<<20)
	added, err := a.Add(ctx, path, AddConfig{Profile: unixfs.Profiles()[0]})
	if err != nil {
		t.Fatal(err)
	}
	from := []transport.Peer{{ID: a.Self(), Addrs: a.Addrs()}}
	b.Introduce(from...)

	s := b.NewSession(SessionConfig{Peers: []dray.PeerID{a.Self()}, Root: added.Root, Origin: Origin{Who: "gateway"}})
	if _, err := s.Get(ctx, added.Root); err != nil {
		t.Fatal(err)
	}
	running := b.Transfers().Running
	if len(running) != 1 || running[0].Kind != KindSession || running[0].Progress.Done == 0 || given(&running[0]) != running[0].Progress.Done {
		t.Fatalf("%+v, want one session that got a block", running)
	}
	s.Close()
	idle := b.NewSession(SessionConfig{})
	idle.Close()
	b.ask(func() {}) // sessions are closed on the loop
	if err := b.FetchDAG(ctx, DAGConfig{Root: added.Root, Peers: from, Origin: Origin{Who: "car"}}); err != nil {
		t.Fatal(err)
	}
	x := b.Track(TrackConfig{Origin: Origin{Who: "hub", Name: "org/name"}, Total: 100})
	x.Came("upstream.example", 60)
	if r := b.Transfers().Running; len(r) != 1 || r[0].Progress.Done != 60 || r[0].Gifts[0].Kind != GiftOrigin {
		t.Fatalf("%+v, want 60 bytes of an origin", r)
	}
	x.End(io.ErrUnexpectedEOF)
	x.End(nil)
	var got []string
	for _, e := range b.Transfers().Ended {
		got = append(got, string(e.Kind)+" "+string(e.State))
		if given(&e) != e.Progress.Done {
			t.Errorf("%+v: %d of %d were given", e, given(&e), e.Progress.Done)
		}
	}
	if want := "outside failed, graph done, session done"; strings.Join(got, ", ") != want {
		t.Errorf("ended: %v, want %s", got, want)
	}
}

// TestManyTransfers is about the bounds of the list.
func TestManyTransfers(t *testing.T) {
	n := testNode(t, nil)
	var open []*Tracked
	for range maxRunning + 10 {
		open = append(open, n.Track(TrackConfig{}))
	}
	l := n.Transfers()
	if len(l.Running) != maxRunning || l.More != 10 || l.Running[0].ID != maxRunning+10 {
		t.Fatalf("%d and %d more, the first is %d", len(l.Running), l.More, l.Running[0].ID)
	}
	for _, x := range open {
		for range 300 {
			x.Came("origin "+strings.Repeat("x", int(x.entry.t.ID)%2), 1)
		}
		x.End(nil)
	}
	l = n.Transfers()
	if len(l.Running) != 0 || len(l.Ended) != maxEnded || l.Ended[0].ID != maxRunning+10 {
		t.Fatalf("%d run, %d have ended", len(l.Running), len(l.Ended))
	}
	x := n.Track(TrackConfig{})
	for i := range 2 * maxGifts {
		x.Came(strings.Repeat("y", i+1), 1)
	}
	if r := n.Transfers().Running[0]; len(r.Gifts) != maxGifts || given(&r) != 2*maxGifts {
		t.Fatalf("%d sources gave %d", len(r.Gifts), given(&r))
	}
}

// TestTransferOfPart follows one tensor of a model, and a stream of all.
func TestTransferOfPart(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mem := transport.NewMemory(transport.MemoryConfig{})
	a, b := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	header := `{"w0":{"dtype":"U8","shape":[2097152],"data_offsets":[0,2097152]},"w1":{"dtype":"U8","shape":[2097152],` +
		`"data_offsets":[2097152,4194304]}}`
	_, data := randomFile(t, 4<<20)
	model := append(append([]byte{byte(len(header)), 0, 0, 0, 0, 0, 0, 0}, header...), data...)
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := os.WriteFile(path, model, 0o644); err != nil {
		t.Fatal(err)
	}
	added, err := a.Add(ctx, path, AddConfig{Profile: unixfs.Profiles()[0]})
	if err != nil {
		t.Fatal(err)
	}
	tensors := TensorsConfig{Root: added.Root, Peers: []transport.Peer{{ID: a.Self(), Addrs: a.Addrs()}}}
	cfg := PartConfig{
		TensorsConfig: tensors, Selection: Selection{Patterns: []string{"w1"}}, Path: filepath.Join(t.TempDir(), "p.safetensors"),
		Origin: Origin{Who: "job 1"},
	}
	if _, err := b.FetchPart(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	e := b.Transfers().Ended[0]
	if e.Kind != KindPart || e.Progress.Done != 2<<20 || given(&e) != 2<<20 || e.Origin.Who != "job 1" {
		t.Fatalf("%+v: %d were given", e, given(&e))
	}
	sum := int64(0)
	for p, err := range b.Stream(ctx, StreamConfig{TensorsConfig: tensors, Selection: Selection{Patterns: []string{"*"}}}) {
		if err != nil {
			t.Fatal(err)
		}
		sum += int64(len(p.Data))
	}
	e = b.Transfers().Ended[0]
	if e.Kind != KindStream || e.State != TransferDone || e.Progress.Done != sum || given(&e) != sum {
		t.Fatalf("%+v: %d were given of %d", e, given(&e), sum)
	}
}

// TestPace lets bytes come in known ways.
func TestPace(t *testing.T) {
	at := time.Unix(1000, 0)
	p := newPace(leftOver, at)
	if p.left(100) != -1 {
		t.Error("an estimate from nothing")
	}
	count := int64(0)
	run := func(d time.Duration, rate float64) {
		for end := at.Add(d); at.Before(end); {
			at = at.Add(200 * time.Millisecond)
			count += int64(rate / 5)
			p.observe(at, count)
		}
	}
	near := func(what string, got, want, share float64) {
		t.Helper()
		if math.Abs(got-want) > share*want {
			t.Errorf("%s: %.0f, want %.0f within %.0f %%", what, got, want, 100*share)
		}
	}
	run(time.Second, 1e6)
	near("after a second", p.perSecond(), 1e6, 1e-6)
	near("10 MB more", p.left(10e6).Seconds(), 10, 1e-6)
	run(30*time.Second, 1e6)
	run(3*leftOver, 4e6)
	near("a faster line, three times the time over", p.perSecond(), 4e6, 0.05)
	before := p.perSecond()
	if now := p.at(at.Add(leftOver)); now > before/2 || now < before/4 {
		t.Errorf("silence for the time over leaves %.0f of %.0f", now, before)
	}
	run(20*leftOver, 0)
	if p.left(1000) != -1 {
		t.Errorf("%v left when nothing moves", p.left(1000))
	}
	if p.left(0) != 0 {
		t.Error("something is left of nothing")
	}
	p.observe(at.Add(time.Second), 0) // the call began anew
	if p.perSecond() < 0 {
		t.Error("a rate below nothing")
	}
}

// TestRecords is about the bound of the log, and its order.
func TestRecords(t *testing.T) {
	n := testNode(t, nil)
	for range maxRecords + 100 {
		n.Record(Record{Kind: RecordJob, Text: strings.Repeat("é", maxRecordText)})
	}
	all := n.Records(0, 2*maxRecords)
	if len(all) != maxRecords || all[len(all)-1].Seq < maxRecords+100 {
		t.Fatalf("%d records, the last is %d", len(all), all[len(all)-1].Seq)
	}
	for i := range all {
		if i > 0 && all[i].Seq != all[i-1].Seq+1 || len(all[i].Text) > maxRecordText+4 ||
			all[i].Kind == RecordJob && !strings.HasSuffix(all[i].Text, "é…") {
			t.Fatalf("record %d is %d, of %d bytes", i, all[i].Seq, len(all[i].Text))
		}
	}
	last := all[len(all)-1].Seq
	if got := n.Records(last-3, 2); len(got) != 2 || got[1].Seq != last {
		t.Errorf("%+v, want the last two", got)
	}
	if got := n.Records(last, 10); len(got) != 0 {
		t.Errorf("%+v after the last", got)
	}
	if got := n.Records(last+50, 10); len(got) != 0 {
		t.Errorf("%+v after what never was", got)
	}
}

// TestFlowRing compares what passed in each second with a list.
func TestFlowRing(t *testing.T) {
	var r flowRing
	want := map[int64]int64{}
	for _, ms := range []int64{0, 10, 999, 1000, 5500, 5600, 299_000, 300_500, 400_000, 1_200_000} {
		r.add(time.Duration(ms)*time.Millisecond, ms+1, 2)
		want[ms/1000] += ms + 1
		for k := max(r.last-flowSeconds+1, 0); k <= r.last; k++ {
			if got := r.slot[k%flowSeconds].In; got != want[k] {
				t.Fatalf("at %d ms: %d in second %d, want %d", ms, got, k, want[k])
			}
		}
	}
}

// TestFlows and states: what was sent and received shows, and a peer that begins to deliver.
func TestFlows(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	a, b := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	fetchAndCompare(t, a, b, unixfs.Profiles()[0], 4<<20)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var in, out int64
		list, _ := b.Flows()
		for _, f := range list {
			in += f.In
		}
		list, until := a.Flows()
		for _, f := range list {
			out += f.Out
		}
		healthy := false
		for _, r := range b.Records(0, 100) {
			healthy = healthy || r.Kind == RecordHealth && r.Peer == a.Self() && strings.Contains(r.Text, "delivers")
		}
		if in >= 4<<20 && out >= in && healthy {
			if d := time.Since(until); d < 0 || d > 5*time.Second {
				t.Errorf("the last second ended %v ago", d)
			}
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d in, %d out, healthy %v", in, out, healthy)
		}
	}
}

// TestStalled says when a transfer counts as stalled.
func TestStalled(t *testing.T) {
	now := time.Now()
	waits := []Wait{{Reason: exchange.ReasonNobody}}
	for _, x := range []struct {
		name string
		t    Transfer
		want time.Duration
	}{
		{"moving", Transfer{State: TransferRunning, Moved: now.Add(-time.Second), Waits: waits}, 0},
		{"still", Transfer{State: TransferRunning, Moved: now.Add(-5 * time.Second), Waits: waits}, 5 * time.Second},
		{"busy", Transfer{State: TransferRunning, Moved: now.Add(-5 * time.Second)}, 0},
		{"over", Transfer{State: TransferFailed, Moved: now.Add(-5 * time.Second), Waits: waits}, 0},
	} {
		if got := x.t.Stalled(now); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}
