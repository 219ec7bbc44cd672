package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdAgain starts a server that has ended where it was before.
func cmdAgain(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 1 && ts.Getenv(args[0]) != "", "again NAME, after serve NAME")
	at, _, _ := strings.Cut(ts.Getenv(args[0]), "/p2p/")
	p := launch(ts, args[0], "--home", ts.MkAbs(args[0]), "serve", "--json", "--listen", at)
	if line, err := p.out.ReadBytes('\n'); err != nil {
		p.wait()
		ts.Fatalf("serve: %v: %q %s", err, line, p.stderr.String())
	}
}

// cmdThrottle starts a relay that the script's end stops. Connections end when either side ends them.
func cmdThrottle(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3, "throttle NAME ADDR BYTES")
	port := tcpPort.FindStringSubmatch(args[1])
	need(ts, neg, port != nil, "throttle NAME /ip4/127.0.0.1/tcp/PORT/p2p/ID BYTES")
	rate, err := strconv.Atoi(args[2])
	ts.Check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	const tick = 5 * time.Millisecond
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		open = make(map[net.Conn]bool)
		done = make(chan struct{})
		// What may be sent, in pieces of a tick's worth; all connections share it.
		share = make(chan int)
	)
	wg.Go(func() {
		t := time.NewTicker(tick)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-done:
				return
			}
			select {
			case share <- rate * int(tick) / int(time.Second):
			case <-done:
				return
			}
		}
	})
	carried := new(atomic.Int64)
	relayed(ts)[args[0]] = carried
	pair := func(in, out net.Conn) (end func()) {
		mu.Lock()
		defer mu.Unlock()
		open[in], open[out] = true, true
		return func() {
			mu.Lock()
			defer mu.Unlock()
			delete(open, in)
			delete(open, out)
			in.Close()
			out.Close()
		}
	}
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", "127.0.0.1:"+port[1])
			if err != nil {
				in.Close()
				continue
			}
			end := pair(in, out)
			wg.Go(func() {
				defer end()
				io.Copy(out, in)
			})
			wg.Go(func() {
				defer end()
				for {
					select {
					case n := <-share:
						k, err := io.CopyN(in, out, int64(n))
						carried.Add(k)
						if err != nil {
							return
						}
					case <-done:
						return
					}
				}
			})
		}
	})
	ts.Defer(func() {
		close(done)
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	ts.Setenv(args[0], tcpPort.ReplaceAllString(args[1], fmt.Sprintf("/tcp/%d", l.Addr().(*net.TCPAddr).Port)))
}

// cmdMayhem kills servers and gets. A get that was begun before the server was back may give up: the same
// command must then end well.
func cmdMayhem(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 3, "mayhem SEED KILLS CID NAME…")
	kills, err := strconv.Atoi(args[1])
	ts.Check(err)
	seed, cid, names := args[0], args[2], args[3:]
	begun := make(map[string]int) // how often the server had come back then
	backs := 0
	get := func(name string) {
		begun[name] = backs
		launch(ts, name, "--home", ts.MkAbs(name), "get", cid, "-o", name+".bin", "--from", ts.Getenv("slow"), "--json")
	}
	for _, name := range names {
		get(name)
	}
	rng := rand.New(rand.NewPCG(1, uint64(kills)))
	for range kills {
		t := time.NewTimer(time.Duration(rng.IntN(500)) * time.Millisecond)
		<-t.C
		victim := append([]string{seed}, names...)[rng.IntN(1+len(names))]
		p := running(ts, victim)
		ts.Check(p.cmd.Process.Kill())
		p.wait()
		if victim == seed {
			cmdAgain(ts, false, []string{seed})
			backs++
		} else {
			get(victim)
		}
	}
	for _, name := range names {
		p := running(ts, name)
		code := p.wait()
		if code == exitUnreachable && begun[name] < backs {
			get(name)
			p = running(ts, name)
			code = p.wait()
		}
		if code != 0 {
			ts.Fatalf("the last get of %s ended with %d: %s", name, code, p.stderr.String())
		}
	}
}
