package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray"
	"dray/exchange"
	"dray/node"
	"dray/store/disk"
)

var cmdDoctor = &cobra.Command{
	Use:   "doctor [" + targetHelp + "]",
	Short: "find out what limits transfers on this machine, or one of them",
	Long: `Doctor without an argument measures this machine: how fast the home's disk writes, reads and syncs, how fast it hashes and
enciphers, what its loopback carries, how many files may be open and how large UDP buffers may be, whether the clock and
the home's permissions are in order, whether a daemon runs and where it can be reached. Each line says ok or warn and, if
so, what to do. It writes 64 MiB to the home and removes them.

With a CID or ticket it fetches that for --for, in the way of every other get, into a temporary directory in the home, which it
removes, and says what limited it: this host's own limit, its disk, hashing or processors; the window or the round trip; the
peers' uplink, a relay, or that too few have it. All figures come from that transfer. What is on this host already is not
fetched again, so it must be something that is not.

With --json each check is a line {"name":…,"ok":…,"value":…,"rate":…,"number":…,"advice":…}, and a diagnosis is one line
{"cid":…,"limited_by":…,"verdict":…,"bytes":…,"seconds":…,"rate":…,"shares":[{"resource":…,"share":…,"rate":…}],…}.`,
	Example: `  dray doctor
  dray doctor TICKET
  dray doctor bafybei… --from /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… --for 30s`,
	Args: arguments(0, 1, targetHelp),
}

func newDoctor(e *env) *cobra.Command {
	var o sourceOptions
	var last time.Duration
	c := bind(e, cmdDoctor, func(ctx context.Context, e *env, args []string) error {
		if len(args) == 0 {
			return runExamine(ctx, e)
		}
		return runDiagnose(ctx, e, o, last, args[0])
	})
	o.flags(c)
	planeFlag(e, c)
	c.Flags().DurationVar(&last, "for", 10*time.Second, "how long to fetch at most")
	return c
}

// runExamine looks at the machine.
func runExamine(ctx context.Context, e *env) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	if err := makeHome(home); err != nil {
		return err
	}
	list := append(examine(ctx, home), checkDaemon(ctx, home)...)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	warned := 0
	for _, c := range list {
		if !c.OK {
			warned++
		}
		if e.json {
			if err := e.emit(c); err != nil {
				return err
			}
			continue
		}
		word := "ok  "
		if !c.OK {
			word = "warn"
		}
		e.printf("%s  %-26s %s", word, c.Name, c.Value)
		if c.Advice != "" {
			e.printf("      %-26s → %s", "", c.Advice)
		}
	}
	if !e.json {
		e.printf("%s, %s", plural(int64(len(list)), "check"), plural(int64(warned), "warning"))
	}
	return nil
}

// checkDaemon tells whether a daemon runs, and where others can reach it.
func checkDaemon(ctx context.Context, home string) []check {
	r, err := dialRemote(ctx, home)
	if err != nil {
		return []check{failed("daemon", err, "restart `dray serve`")}
	}
	if r == nil {
		return []check{{Name: "daemon", OK: true, Value: "none runs on this home; `dray serve` starts one"}}
	}
	defer r.Close()
	id, err := taskID.do(ctx, r, nothing{}, pipes[nothing]{})
	if err != nil {
		return []check{failed("daemon", err, "restart `dray serve`")}
	}
	list := []check{{Name: "daemon", OK: true, Value: "runs as " + id.Peer}}
	reach := check{Name: "addresses", Value: "none", Advice: "name one with `dray serve --listen /ip4/0.0.0.0/tcp/4001`"}
	var others, alone, deaf []string
	for _, a := range id.Addrs {
		switch host, port := tcpAddress(a); {
		case host == "":
			others = append(others, a) // not TCP: not tried here
		case net.ParseIP(host).IsLoopback():
			alone = append(alone, a)
		case !answers(ctx, host, port):
			deaf = append(deaf, a)
		default:
			others = append(others, a)
		}
	}
	switch {
	case len(others) > 0:
		reach = check{Name: "addresses", OK: true, Number: float64(len(others)), Value: strings.Join(others, " ")}
	case len(deaf) > 0:
		reach.Value = strings.Join(deaf, " ") + " cannot be connected to"
		reach.Advice = "a firewall on this machine may be in the way"
	case len(alone) > 0:
		reach.Value = "only this machine can connect to " + strings.Join(alone, " ")
	}
	return append(list, reach, checkReach(ctx, r))
}

// tcpAddress returns the host and port of a multiaddr that is plain TCP, or "".
func tcpAddress(addr string) (host, port string) {
	parts := strings.Split(addr, "/")
	if len(parts) >= 5 && (parts[1] == "ip4" || parts[1] == "ip6") && parts[3] == "tcp" {
		return parts[2], parts[4]
	}
	return "", ""
}

func answers(ctx context.Context, host, port string) bool {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// doctorRequest asks what limits the fetch of a target.
type doctorRequest struct {
	targetRequest
	For     time.Duration `json:"for"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// diagnosed is the answer.
type diagnosed struct {
	CID       string `json:"cid"`
	LimitedBy string `json:"limited_by"`
	Verdict   string `json:"verdict"`
	// Bytes came from peers in Seconds, after First seconds without any, Rate a second. Here were on this host before.
	Bytes    int64   `json:"bytes"`
	Here     int64   `json:"known_bytes"`
	Complete bool    `json:"complete"`
	Seconds  float64 `json:"seconds"`
	First    float64 `json:"first_seconds"`
	Rate     float64 `json:"rate"`
	// Shares are of the time, between 0 and 1. They do not add up to one.
	Shares []sharePart `json:"shares"`
	// Peers delivered; Lacking more are connected and lack it. RelayedBytes came through a third host.
	Peers        int   `json:"peers"`
	Lacking      int   `json:"lacking"`
	RelayedBytes int64 `json:"relayed_bytes"`
	// RTT is the round trip, Queue how long a byte was waited for after it was asked for; Waiting and Window are the bytes that
	// were asked for and had not come, and how many could have been, on average.
	RTT     float64 `json:"rtt_seconds"`
	Queue   float64 `json:"queue_seconds"`
	Waiting int64   `json:"waiting_bytes"`
	Window  int64   `json:"window_bytes"`
}

type sharePart struct {
	Resource string  `json:"resource"`
	Share    float64 `json:"share"`
	Rate     float64 `json:"rate,omitempty"`
}

var taskDoctor = task[doctorRequest, nothing, diagnosed]{name: "doctor", network: true, run: diagnose}

func runDiagnose(ctx context.Context, e *env, o sourceOptions, last time.Duration, arg string) error {
	if last <= 0 {
		return usagef("--for %v is not positive; right is a duration such as 30s", last)
	}
	t, err := o.target(arg)
	if err != nil {
		return err
	}
	e.tell("fetching for up to %s into a temporary directory, which is removed", seconds(last))
	d, err := taskDoctor.with(ctx, e, doctorRequest{t.request(), last, o.timeout}, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(d)
	}
	d.print(e)
	return nil
}

func (d *diagnosed) print(e *env) {
	e.printf("%s from %s in %s, %s/s; the first byte after %s", size(d.Bytes), plural(int64(d.Peers), "peer"), inSeconds(d.Seconds),
		size(int64(d.Rate)), inSeconds(d.First))
	if d.RTT > 0 {
		e.printf("round trip %s; what is asked for comes after %s; %s of %s were under way on average", inSeconds(d.RTT),
			inSeconds(d.Queue), size(d.Waiting), size(d.Window))
	}
	for _, s := range d.Shares {
		rate := ""
		if s.Rate > 0 {
			rate = "  " + size(int64(s.Rate)) + "/s"
		}
		e.printf("%3.0f %%  %s%s", 100*s.Share, s.Resource, rate)
	}
	e.printf("%s", d.Verdict)
}

func inSeconds(s float64) string { return seconds(time.Duration(s * float64(time.Second))) }

// diagnose is the task.
func diagnose(ctx context.Context, h *house, q doctorRequest, _ pipes[nothing]) (d diagnosed, err error) {
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return d, err
	}
	if len(t.names) > 0 {
		if t.root, err = h.lookup(ctx, t); err != nil {
			return d, err
		}
	}
	n, offline, done, err := h.reach(t.peers)
	if err != nil {
		return d, err
	}
	defer done()
	if offline {
		return d, nobody(t.root, t.peers, &dray.Error{Op: "doctor", CID: t.root, Err: dray.ErrNotFound})
	}
	_, before := h.store.Stat(ctx, t.root)
	dir, err := os.MkdirTemp(h.home, "doctor-*")
	if err != nil {
		return d, err
	}
	path := filepath.Join(dir, "content")
	m, err := n.Diagnose(ctx, node.DiagnoseConfig{
		Fetch: node.FetchConfig{
			Root: t.root, Path: path, Peers: t.peers, Order: exchange.Rarest, Origin: node.Origin{Who: "doctor"},
		},
		For: q.For, CPU: cpuClock,
	})
	if cerr := h.clear(context.WithoutCancel(ctx), t, dir, before != nil); err == nil {
		err = cerr
	}
	if err != nil {
		return d, err
	}
	d = diagnosed{
		CID: t.root.String(), LimitedBy: m.Verdict().String(), Bytes: m.Bytes, Here: m.Here, Complete: m.Complete,
		Seconds: m.Took.Seconds(), First: m.First.Seconds(), Rate: m.Rate, Peers: m.Peers, Lacking: m.Lacking,
		RelayedBytes: m.RelayedBytes, RTT: m.RTT.Seconds(), Queue: m.Queue().Seconds(), Waiting: int64(m.Waiting), Window: int64(m.Window),
		Shares: []sharePart{},
	}
	if m.Bytes > 0 {
		for _, s := range m.Shares() {
			d.Shares = append(d.Shares, sharePart{s.Resource.String(), s.Share, s.Rate})
		}
	}
	d.Verdict = verdict(&m)
	return d, nil
}

// settleTime is how long to wait for blocks that were on their way when a diagnosis ended.
const settleTime = 2 * time.Second

// clear removes what a diagnosis fetched: the files, what the store knows of them and, if nothing of the root was here
// before, its blocks.
func (h *house) clear(ctx context.Context, t target, dir string, blocks bool) error {
	settled, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := h.node.Settle(settled); err != nil {
		h.env.log().Debug("blocks are still being written", "err", err) // one may stay, which gc finds
	}
	files, err := filesUnder(dir)
	if rerr := os.RemoveAll(dir); err == nil {
		err = rerr
	}
	if blocks {
		roots, rerr := h.store.Roots(ctx)
		if rerr == nil {
			_, rerr = h.forget(ctx, disk.Root{CID: t.root, Files: files}, roots)
		}
		if isGone(rerr) {
			rerr = nil // there was nothing
		}
		return errors.Join(err, rerr)
	}
	for _, f := range files {
		err = errors.Join(err, h.store.Forget(ctx, f))
	}
	return err
}

// verdict says what limited a transfer, with the figures that show it.
func verdict(m *node.Measures) string {
	here := "this host"
	for _, s := range m.Shares() {
		switch {
		case s.Rate <= 0:
		case s.Resource == node.LimitDisk:
			here += fmt.Sprintf(" writes %s/s,", size(int64(s.Rate)))
		case s.Resource == node.LimitHash:
			here += fmt.Sprintf(" hashes %s/s,", size(int64(s.Rate)))
		}
	}
	here = strings.TrimSuffix(here, ",")
	rate, peers := size(int64(m.Rate))+"/s", plural(int64(m.Peers), "peer")
	if m.Peers > 1 {
		peers += " together"
	}
	switch m.Verdict() {
	case node.LimitNothing:
		return "nothing to fetch: all of it is on this host already; try something that is not"
	case node.LimitNobody:
		why := ""
		if len(m.Waits) > 0 {
			why = ": " + inWords(m.Waits, time.Now(), 0).Text
		}
		return "limited by: nobody delivers" + why
	case node.LimitOwn:
		return fmt.Sprintf("limited by: this host's own limit, %.0f %% of the time (%s came; `dray limit` changes it)", 100*m.Limited, rate)
	case node.LimitDisk:
		return fmt.Sprintf("limited by: this host's disk (%s came, and waited %.0f %% of the time; %s)", rate, 100*m.Behind, here)
	case node.LimitHash:
		return fmt.Sprintf("limited by: hashing (%s came; %s)", rate, here)
	case node.LimitCPU:
		return fmt.Sprintf("limited by: this host's processors, %.0f %% busy, most of it with deciphering and copying (%s came; %s)", 100*m.CPU, rate, here)
	case node.LimitWindow:
		return fmt.Sprintf("limited by: the window (%s may be under way over a round trip of %s, which gives %s)",
			size(int64(m.Window)), seconds(m.RTT), rate)
	case node.LimitRoundTrip:
		return fmt.Sprintf("limited by: the round trip of %s (%s were asked for at a time, and came at once; %s)",
			seconds(m.RTT), size(int64(m.Waiting)), rate)
	case node.LimitRelay:
		return fmt.Sprintf("limited by: a relay (%s of %s came through a third host, %s)", size(m.RelayedBytes), size(m.Bytes), rate)
	case node.LimitHolders:
		return fmt.Sprintf("limited by: few holders (1 peer has it and delivers %s; %d others that are connected lack it; %s)", rate, m.Lacking, here)
	case node.LimitUplink:
		verb := "deliver"
		if m.Peers == 1 {
			verb = "delivers"
		}
		return fmt.Sprintf("limited by: the peers' uplink (%s %s %s; %s)", peers, verb, rate, here)
	}
	return fmt.Sprintf("too little to tell: %s came in %s; try something larger", size(m.Bytes), seconds(m.Took))
}
