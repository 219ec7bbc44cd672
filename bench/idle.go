package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"dray/node"
	"dray/store"
	"dray/transport/p2p"
)

// What a daemon costs while nothing is asked of it: how long it takes to be ready, and what memory and CPU it takes with
// peers connected that are real in all but their number a process. See docs/serve.md.

// idleBounds are what the report compares with.
const (
	idleReady = 300 * time.Millisecond
	idleRSS   = 60 << 20
	idleShare = 0.005 // of a core
)

// idleFigures is what was measured.
type idleFigures struct {
	// Ready is the median of the times from the start of the process to its first line.
	Ready time.Duration
	Peers int
	// RSS, Anon and File are resident bytes with the peers connected: all, the process's own, and of the program's file,
	// which the system shares and may drop.
	RSS, Anon, File int64
	// Share is the CPU time that it took for each second, of one core; Alone is the same without peers.
	Share, Alone float64
	For          time.Duration
}

func runIdle(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("idle", flag.ContinueOnError)
	dray := fs.String("dray", "", "the dray program; if empty, it is built from ../cmd/dray")
	peers := fs.Int("peers", 50, "peers that are connected")
	span := fs.Duration("for", time.Minute, "how long CPU time is counted")
	starts := fs.Int("starts", 9, "how often it is started to see how long that takes")
	settle := fs.Duration("settle", 10*time.Second, "how long it is left alone before anything is counted")
	if err := fs.Parse(args); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "idle-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	program := *dray
	if program == "" {
		program = filepath.Join(work, "dray")
		if err := buildDray(ctx, program); err != nil {
			return err
		}
	}
	f := idleFigures{Peers: *peers, For: *span}
	serve := command{
		path: program, args: []string{"--home", filepath.Join(work, "home"), "--json", "serve", "--http", "127.0.0.1:0"},
		stopped: 0,
	}
	if f.Ready, err = timeStarts(serve, *starts); err != nil {
		return err
	}
	if err := f.measure(ctx, serve, *settle); err != nil {
		return err
	}
	f.print()
	return nil
}

// timeStarts returns the median time that a program takes to be ready.
func timeStarts(c command, times int) (time.Duration, error) {
	var all []float64
	for range times {
		begun := time.Now()
		s, err := c.start()
		if err != nil {
			return 0, err
		}
		all = append(all, time.Since(begun).Seconds())
		if _, err := s.stop(); err != nil {
			return 0, err
		}
	}
	return time.Duration(median(all) * float64(time.Second)), nil
}

// measure looks at a daemon alone and then with peers.
func (f *idleFigures) measure(ctx context.Context, serve command, settle time.Duration) (err error) {
	s, err := serve.start()
	if err != nil {
		return err
	}
	defer s.end(&err)
	address, err := peerAddress(ctx, nil, s, "")
	if err != nil {
		return err
	}
	pid, pause := s.cmd.Process.Pid, newPause()
	share := func() (float64, error) {
		if err := pause.wait(ctx, settle); err != nil {
			return 0, err
		}
		begun, from := time.Now(), time.Duration(0)
		if from, err = cpuTime(pid); err != nil {
			return 0, err
		}
		if err := pause.wait(ctx, f.For); err != nil {
			return 0, err
		}
		to, err := cpuTime(pid)
		return (to - from).Seconds() / time.Since(begun).Seconds(), err
	}
	if f.Alone, err = share(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	crowd, err := command{
		path: self, args: []string{"role=idle-peers", "-count", strconv.Itoa(f.Peers), "-at", address},
	}.start()
	if err != nil {
		return err
	}
	defer crowd.end(&err)
	if f.Share, err = share(); err != nil {
		return err
	}
	return readMemory(pid, map[string]*int64{"VmRSS": &f.RSS, "RssAnon": &f.Anon, "RssFile": &f.File})
}

func (f *idleFigures) print() {
	verdict := func(ok bool) string {
		if ok {
			return "within"
		}
		return "BEYOND"
	}
	fmt.Printf("ready after        %v, %s %v\n", f.Ready.Round(time.Millisecond), verdict(f.Ready <= idleReady), idleReady)
	fmt.Printf("with %d peers      %.1f MiB resident (%.1f its own, %.1f of the program's file), %s %d MiB\n", f.Peers,
		float64(f.RSS)/(1<<20), float64(f.Anon)/(1<<20), float64(f.File)/(1<<20), verdict(f.RSS <= idleRSS), idleRSS>>20)
	fmt.Printf("                   %.3f %% of a core over %v, %s %.1f %% (without peers %.3f %%)\n", 100*f.Share, f.For,
		verdict(f.Share <= idleShare), 100*idleShare, 100*f.Alone)
}

// runIdlePeers is a number of hosts in one process, each with a node of its own, that connect to a daemon and stay.
func runIdlePeers(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("idle-peers", flag.ContinueOnError)
	count := fs.Int("count", 50, "how many")
	at := fs.String("at", "", "multiaddr of the daemon")
	if err := fs.Parse(args); err != nil {
		return err
	}
	daemon, err := p2p.ParseAddr(*at)
	if err != nil {
		return err
	}
	var (
		mu     sync.Mutex
		closes []func() error
		wg     sync.WaitGroup
		errs   []error
	)
	defer func() {
		for _, c := range closes {
			err = errors.Join(err, c())
		}
	}()
	for range *count {
		wg.Go(func() {
			host, err := p2p.New(p2p.Config{Listen: []string{}})
			if err == nil {
				var n *node.Node
				if n, err = node.New(node.Config{Store: store.NewMem(0), Network: host}); err == nil {
					mu.Lock()
					closes = append(closes, n.Close, host.Close)
					mu.Unlock()
					err = n.Connect(ctx, daemon)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := printJSON(map[string]int{"connected": *count}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
