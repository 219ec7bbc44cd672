package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dray": main})
}

// TestScripts runs testdata/*.txtar. Beside testscript's own commands there are:
//
//	exit CODE dray ARGS…        run, and expect the exit code
//	eventually CODE PATTERN dray ARGS…
//	                            run until it ends with the exit code and prints what matches
//	random FILE BYTES           write a file whose bytes are the same each time
//	model FILE NAME:SEED:BYTES… write a safetensors file; tensors with the same seed and size are equal
//	serve NAME [FLAGS…]         start `dray --home NAME serve`, wait until it is ready, set $NAME to its address and
//	                            $NAME_peer to its id, $NAME_http to the URL of its HTTP
//	again NAME                  serve NAME once more, at the same address
//	throttle NAME ADDR BYTES    set $NAME to an address that leads to ADDR, and carries so many bytes a second to the client
//	mayhem SEED KILLS CID NAME… kill -9 the server SEED, or a get of CID at home NAME from $slow into NAME.bin, at random, so many
//	                            times, and begin what was killed again
//	slay NAME KILLS             kill -9 the server NAME at random, so many times, and begin it again each time
//	moved NAME JOB BYTES        wait until that job of the server NAME has so many bytes in place
//	eventually NAME JOB STATE   wait until that job of the server NAME is in that state
//	await NAME jobs NUMBER      wait until the server NAME has so many jobs, and all are done
//	await NAME peers NUMBER     wait until the server NAME is connected to so many
//	await NAME held BYTES       wait until the store of the server NAME has no more bytes of its own than that
//	cull NAME KILLS             collect garbage in a home and kill -9 that at random, so many times
//	carried NAME OP BYTES       compare what the throttle NAME carried to clients with a number, by < or >
//	halt NAME                   SIGTERM it, and expect exit code 0
//	proxy NAME ADDR BYTES       set $NAME to an address that leads to ADDR and goes dumb after that many bytes to the client, over all
//	                            connections
//	start NAME BYTES ARGS…      start `dray ARGS… --json` and wait until that many bytes are in place
//	outlast NAME SECONDS        wait until a process begun with start has run for so long
//	spawn NAME ARGS…            start `dray ARGS…`, wait for its first line and write that to NAME.first
//	end NAME SIGNAL CODE        send it a signal and expect the exit code; -1 is death by the signal
//	ended NAME CODE             wait for its end and expect the exit code
//	last FILE KEY OP NUMBER     compare a number in the last line of a file, which is JSON; OP is <, = or >
//	setlast VAR FILE KEY        set $VAR to a string in the last line of a file, which is JSON
//	garble FILE OFFSET          change one byte and keep the file's times
//	checkpoint FILE… FIRST-LAST write safetensors files that hold such layers of a model between them, random
//	                            but the same each time; with several, an index lies beside them
//	tensors FILE COUNT SOURCE…  expect a safetensors file with so many tensors, each as it is in one of the sources
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit": cmdExit, "random": cmdRandom, "model": cmdModel, "serve": cmdStartServe, "halt": cmdHalt,
			"proxy": cmdProxy, "start": cmdStart, "outlast": cmdOutlast, "spawn": cmdSpawn, "end": cmdEnd, "ended": cmdEnded,
			"last": cmdLast, "again": cmdAgain, "throttle": cmdThrottle, "mayhem": cmdMayhem, "slay": cmdSlay, "carried": cmdCarried, "await": cmdAwait, "eventually": cmdEventually, "cull": cmdCull, "moved": cmdMoved,
			"setlast": cmdSetLast, "garble": cmdGarble, "checkpoint": cmdCheckpoint, "tensors": cmdSameTensors,
			"retry": cmdRetry, "website": cmdWebsite, "fetch": cmdFetch,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("DRAY_HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("DRAY_HTTP_LISTEN", "127.0.0.1:0") // several daemons run at once
			e.Setenv("DRAY_REACH_LAN", "false")         // tests are seen by nobody
			e.Setenv("DRAY_REACH_MAP_PORTS", "false")
			e.Setenv("DRAY_REACH_DHT", "off")       // and meet whom a script has them meet
			e.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector waits a second at each exit otherwise
			e.Values["processes"] = make(map[string]*process)
			e.Values["relayed"] = make(map[string]*atomic.Int64)
			return nil
		},
	})
}

func need(ts *testscript.TestScript, neg bool, ok bool, usage string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 1, "exit CODE PROGRAM ARGS…")
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func cmdRandom(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "random FILE BYTES")
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	var seed [32]byte
	copy(seed[:], args[0])
	data := make([]byte, n)
	rand.NewChaCha8(seed).Read(data)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

func cmdModel(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 1, "model FILE NAME:SEED:BYTES…")
	header, data := []byte("{"), []byte(nil)
	for i, arg := range args[1:] {
		part := strings.Split(arg, ":")
		need(ts, neg, len(part) == 3, "model FILE NAME:SEED:BYTES…")
		n, err := strconv.Atoi(part[2])
		ts.Check(err)
		if i > 0 {
			header = append(header, ',')
		}
		header = fmt.Appendf(header, `%q:{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, part[0], n, len(data), len(data)+n)
		var seed [32]byte
		copy(seed[:], part[1])
		tensor := make([]byte, n)
		rand.NewChaCha8(seed).Read(tensor)
		data = append(data, tensor...)
	}
	header = append(header, '}')
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), append(file, data...), 0o644))
}

// process is a dray that runs beside the script.
type process struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	stdout strings.Builder // after it ended
	stderr strings.Builder
	wg     sync.WaitGroup
	err    error
	over   chan struct{}
}

func launch(ts *testscript.TestScript, name string, args ...string) *process {
	p := &process{cmd: exec.Command("dray", args...), over: make(chan struct{})}
	if path := ts.Getenv("PATH"); path != "" {
		p.cmd.Path = filepath.Join(filepath.SplitList(path)[0], "dray")
		p.cmd.Err = nil
	}
	p.cmd.Dir = ts.MkAbs(".")
	for _, k := range []string{
		"PATH", "HOME", "TMPDIR", "DRAY_HOME", "WORK", "GORACE", "DRAY_HTTP_LISTEN", "DRAY_FIND_PEERS", "DRAY_FIND_ROUTERS",
		"DRAY_REACH_LAN", "DRAY_REACH_MAP_PORTS", "DRAY_REACH_DHT", "DRAY_REACH_TRAVERSE", "DRAY_REACH_RELAYS",
		"DRAY_HTTP_TOKEN", "DRAY_FIND_HOSTS",
	} {
		p.cmd.Env = append(p.cmd.Env, k+"="+ts.Getenv(k))
	}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	ts.Check(err)
	p.out = bufio.NewReader(out)
	ts.Check(p.cmd.Start())
	processes(ts)[name] = p
	ts.Defer(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		p.wait()
		ts.Logf("%s stderr: %s", name, p.stderr.String())
	})
	return p
}

func processes(ts *testscript.TestScript) map[string]*process {
	return ts.Value("processes").(map[string]*process)
}

func running(ts *testscript.TestScript, name string) *process {
	p := processes(ts)[name]
	if p == nil {
		ts.Fatalf("no process %s was started", name)
	}
	return p
}

// wait returns when the process has ended, and its exit code.
func (p *process) wait() int {
	select {
	case <-p.over:
	default:
		io.Copy(&p.stdout, p.out)
		p.err = p.cmd.Wait()
		p.wg.Wait()
		close(p.over)
	}
	return p.cmd.ProcessState.ExitCode()
}

func cmdStartServe(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 0, "serve NAME [FLAGS…]")
	p := launch(ts, args[0], append([]string{
		"--home", ts.MkAbs(args[0]), "serve", "--json",
		"--listen", "/ip4/127.0.0.1/tcp/0",
	}, args[1:]...)...)
	line, err := p.out.ReadBytes('\n')
	var id struct {
		identity
		HTTP string `json:"http"`
	}
	if err == nil {
		err = json.Unmarshal(line, &id)
	}
	if err != nil || len(id.Addrs) == 0 {
		p.wait()
		ts.Fatalf("serve: %v: %q %s", err, line, p.stderr.String())
	}
	ts.Setenv(args[0], id.Addrs[0])
	ts.Setenv(args[0]+"_peer", id.Peer)
	ts.Setenv(args[0]+"_http", strings.TrimSuffix(id.HTTP, "/"))
	ts.Setenv(args[0]+"_at", strings.TrimPrefix(strings.TrimSuffix(id.HTTP, "/"), "http://"))
}

func cmdHalt(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 1, "halt NAME")
	cmdEnd(ts, false, []string{args[0], "TERM", "0"})
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3, "end NAME SIGNAL CODE")
	s, ok := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}[args[1]]
	need(ts, neg, ok, "end NAME INT|TERM|KILL CODE")
	ts.Check(running(ts, args[0]).cmd.Process.Signal(s))
	cmdEnded(ts, false, []string{args[0], args[2]})
}

func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "ended NAME CODE")
	p := running(ts, args[0])
	if code := p.wait(); fmt.Sprint(code) != args[1] {
		ts.Fatalf("%s ended with %d, want %s: %s", args[0], code, args[1], p.stderr.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".stdout"), []byte(p.stdout.String()), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".stderr"), []byte(p.stderr.String()), 0o644))
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 2, "start NAME BYTES ARGS…")
	enough, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	p := launch(ts, args[0], append(args[2:], "--json")...)
	awaitNote(ts, args[0], p, func(n getNote) bool { return n.Done >= enough })
}

func cmdOutlast(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "outlast NAME SECONDS")
	seconds, err := strconv.ParseFloat(args[1], 64)
	ts.Check(err)
	p := processes(ts)[args[0]]
	need(ts, neg, p != nil, "outlast NAME SECONDS, after start NAME")
	awaitNote(ts, args[0], p, func(n getNote) bool { return n.Seconds >= seconds })
}

// awaitNote reads what a get prints until it is far enough.
func awaitNote(ts *testscript.TestScript, name string, p *process, enough func(getNote) bool) {
	for {
		line, err := p.out.ReadBytes('\n')
		if err != nil {
			p.wait()
			ts.Fatalf("%s ended early: %s", name, p.stderr.String())
		}
		var n getNote
		ts.Check(json.Unmarshal(line, &n))
		if n.Event == "progress" && enough(n) {
			return
		}
	}
}

func cmdSpawn(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 1, "spawn NAME ARGS…")
	p := launch(ts, args[0], args[1:]...)
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.wait()
		ts.Fatalf("%s ended early: %s", args[0], p.stderr.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".first"), line, 0o644))
}

var tcpPort = regexp.MustCompile(`/tcp/(\d+)`)

// testHouse opens a home for a test, which closes it unless the test does.
func testHouse(t *testing.T, home string, a access) *house {
	t.Helper()
	h, err := openHouse(&env{stdout: io.Discard, stderr: io.Discard, quiet: true}, home, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// onLoopback is the access of a home that serves, to this machine.
func onLoopback() access { return access{network: true, listen: []string{"/ip4/127.0.0.1/tcp/0"}} }

// cmdProxy starts a relay that the script's end stops.
func cmdProxy(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3, "proxy NAME ADDR BYTES")
	port := tcpPort.FindStringSubmatch(args[1])
	need(ts, neg, port != nil, "proxy NAME /ip4/127.0.0.1/tcp/PORT/p2p/ID BYTES")
	most, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns []net.Conn
		left  atomic.Int64 // for all connections together
	)
	left.Store(most)
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
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
			keep(in)
			keep(out)
			wg.Go(func() {
				io.Copy(out, in)
				out.Close() // the client is gone
			})
			wg.Go(func() { copyShare(in, out, &left) }) // then nothing more comes, and the connection stays open
		}
	})
	ts.Defer(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	ours := fmt.Sprintf("/tcp/%d", l.Addr().(*net.TCPAddr).Port)
	ts.Setenv(args[0], tcpPort.ReplaceAllString(args[1], ours))
}

// copyShare copies until its connection ends or the share that it has with others is used up.
func copyShare(to io.Writer, from io.Reader, left *atomic.Int64) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if over := -left.Add(-int64(n)); over > 0 {
			n = max(n-int(min(over, int64(n))), 0)
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil || left.Load() <= 0 {
			return
		}
	}
}

// lastJSON decodes the last line of a file.
func lastJSON(ts *testscript.TestScript, file string) map[string]any {
	text := strings.TrimSpace(ts.ReadFile(file))
	var m map[string]any
	if err := json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), &m); err != nil {
		ts.Fatalf("the last line is no JSON: %v: %s", err, text)
	}
	return m
}

func cmdLast(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 4, "last FILE KEY OP NUMBER")
	m := lastJSON(ts, args[0])
	var got float64
	if args[1] == "fetched" { // what all sources gave
		list, _ := m["sources"].([]any)
		for _, s := range list {
			got += s.(map[string]any)["bytes"].(float64)
		}
	} else {
		var ok bool
		if got, ok = m[args[1]].(float64); !ok {
			ts.Fatalf("no number %s in %v", args[1], m)
		}
	}
	want, err := strconv.ParseFloat(args[3], 64)
	ts.Check(err)
	if ok := map[string]bool{"<": got < want, "=": got == want, ">": got > want}[args[2]]; !ok {
		ts.Fatalf("%s is %v, want %s %v", args[1], got, args[2], want)
	}
}

func cmdSetLast(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 3, "setlast VAR FILE KEY")
	s, ok := lastJSON(ts, args[1])[args[2]].(string)
	if !ok {
		ts.Fatalf("no string %s in %s", args[2], args[1])
	}
	ts.Setenv(args[0], s)
}

func cmdGarble(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "garble FILE OFFSET")
	path := ts.MkAbs(args[0])
	at, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	info, err := os.Stat(path)
	ts.Check(err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	ts.Check(err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	ts.Check(err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b[:], at)
	ts.Check(errors.Join(err, f.Close(), os.Chtimes(path, time.Time{}, info.ModTime())))
}
