package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dray/settings"
)

// manager is what a service manager is to a daemon: a socket that hears what it says.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "dray-notify-") // its path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "s"))
	return &manager{t, c}
}

// hear returns the next thing that is said.
func (m *manager) hear() string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := m.conn.Read(buf)
	if err != nil {
		m.t.Fatalf("nothing is said: %v", err)
	}
	return string(buf[:n])
}

// begun is a dray of its own process that a test started.
type begun struct {
	cmd    *exec.Cmd
	first  map[string]any
	stderr lockedBuffer
	out    *bufio.Reader
}

// begin starts a daemon on a home and waits for its first line.
func begin(t *testing.T, home string, env []string, args ...string) *begun {
	t.Helper()
	b := &begun{cmd: exec.Command("dray", append([]string{"--home", home, "--json", "serve", "--listen", "/ip4/127.0.0.1/tcp/0"}, args...)...)}
	b.cmd.Env = append(append(os.Environ(), "DRAY_HTTP_LISTEN=127.0.0.1:0", "GORACE=atexit_sleep_ms=0"), env...)
	b.cmd.Stderr = &b.stderr
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.cmd.ProcessState == nil {
			_ = b.cmd.Process.Kill() // it may have ended
			_ = b.cmd.Wait()
		}
	})
	b.out = bufio.NewReader(out)
	line, err := b.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &b.first)
	}
	if err != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		t.Fatalf("%v: %s", err, b.stderr.String())
	}
	return b
}

func (b *begun) url() string { s, _ := b.first["http"].(string); return s }

// end has the daemon end, and returns how long that took.
func (b *begun) end(t *testing.T, want int) time.Duration {
	t.Helper()
	start := time.Now()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = b.cmd.Wait() // the code is looked at below
	if code := b.cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("it ends with %d, want %d: %s", code, want, b.stderr.String())
	}
	return time.Since(start)
}

// TestNotify: the service manager hears when the daemon is ready, that it lives, and when it stops.
func TestNotify(t *testing.T) {
	m := newManager(t)
	b := begin(t, filepath.Join(t.TempDir(), "home"), []string{"WATCHDOG_USEC=400000"})
	ready := m.hear()
	if !strings.HasPrefix(ready, "READY=1\nSTATUS=serving ") || !strings.Contains(ready, b.url()) {
		t.Errorf("the first thing said is %q", ready)
	}
	for range 4 {
		if s := m.hear(); s != "WATCHDOG=1" {
			t.Errorf("then %q is said", s)
		}
	}
	b.end(t, exitOK)
	for {
		if s := m.hear(); s != "WATCHDOG=1" {
			if !strings.HasPrefix(s, "STOPPING=1\n") {
				t.Errorf("at the end %q is said", s)
			}
			break
		}
	}
}

// TestBeat: without a loop that answers there is no sign of life, so that the service manager ends the daemon.
func TestBeat(t *testing.T) {
	_, h := httpOn(t, nil)
	var mu sync.Mutex
	beats := 0
	notify := func(string) { mu.Lock(); beats++; mu.Unlock() }
	count := func() int { mu.Lock(); defer mu.Unlock(); return beats }
	stop := watch(func(done <-chan struct{}) { beat(done, h.node, 20*time.Millisecond, notify) })
	if err := soon(t, func() bool { return count() > 3 }); err != nil {
		t.Error("no sign of life")
	}
	stop()
	if err := h.node.Close(); err != nil {
		t.Fatal(err)
	}
	was := count()
	stop = watch(func(done <-chan struct{}) { beat(done, h.node, time.Millisecond, notify) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	stop()
	if count() != was {
		t.Error("a node that is closed gives signs of life")
	}
}

// soon waits until something holds.
func soon(t *testing.T, holds func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// TestPassedSocket: HTTP is served on the socket that the service manager passes, whatever http.listen says.
func TestPassedSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The variable names the process that may take the socket, so a shell becomes it.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec dray --home "$0" --json serve --listen /ip4/127.0.0.1/tcp/0`,
		filepath.Join(t.TempDir(), "home"))
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "DRAY_HTTP_LISTEN=127.0.0.1:1", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := bufio.NewReader(out).ReadBytes('\n'); err != nil {
		t.Fatal(err)
	}
	if code, body := fetch(t, "http://"+l.Addr().String()+livePath, ""); code != 200 || body != "ok\n" {
		t.Errorf("%d %s", code, body)
	}
}

// fetch asks for a URL, with a token if there is one.
func fetch(t *testing.T, url, token string) (int, string) {
	t.Helper()
	var headers []string
	if token != "" {
		headers = []string{"Authorization", "Bearer " + token}
	}
	a, body, err := download(t, url, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(body)
}

// download asks for a URL, with headers, names and values in turn. The error is of the body, which may have broken off.
func download(t *testing.T, url string, headers ...string) (*http.Response, []byte, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	return a, body, err
}

// TestStopInTime: SIGTERM ends a daemon within ten seconds, whoever does not let go of it.
func TestStopInTime(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	b := begin(t, home, []string{"DRAY_HTTP_TOKEN=" + testToken, "DRAY_HTTP_DRAIN=1s"})
	addr := strings.TrimPrefix(b.url(), "http://")
	dial := func(text string) net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return c
	}
	request := func(what string) string {
		return "GET /debug/pprof/" + what + "?seconds=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testToken + "\r\n\r\n"
	}
	dial("GET / HTTP/1.1\r\nHo")     // never says the rest
	dial(request("trace"))           // never reads
	slow := dial(request("profile")) // reads a byte now and then
	answered := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(answered)
		one := make([]byte, 1)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := slow.Read(one); err != nil {
				return
			}
			<-tick.C
		}
	})
	defer wg.Wait()
	// A get that nobody can answer waits in the daemon.
	get := exec.Command("dray", "--home", home, "get", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "-o", filepath.Join(home, "x"), "--timeout", "5m")
	if err := get.Start(); err != nil {
		t.Fatal(err)
	}
	defer get.Wait()
	if err := soon(t, func() bool {
		_, body := fetch(t, b.url()+profilePath+"goroutine?debug=1", testToken)
		return strings.Contains(body, "pprof.Trace") && strings.Contains(body, "pprof.Profile")
	}); err != nil {
		t.Fatal("the trace did not begin")
	}
	if took := b.end(t, exitOK); took > stopWithin {
		t.Errorf("it took %v", took)
	}
	slow.Close()
	<-answered
}

// TestSignals: SIGHUP has the members read again, and a second SIGTERM ends a daemon that still lets a request end.
func TestSignals(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	b := begin(t, home, []string{"DRAY_HTTP_TOKEN=" + testToken, "DRAY_HTTP_DRAIN=8s"})
	if err := os.WriteFile(membersPath(home), []byte("nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	complaints := func(n int) {
		t.Helper()
		if soon(t, func() bool { return strings.Count(b.stderr.String(), "the members of before stay") == n }) != nil {
			t.Errorf("it says %q, want %d complaints about the members", b.stderr.String(), n)
		}
	}
	complaints(1) // as the file has changed
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	complaints(2)
	addr := strings.TrimPrefix(b.url(), "http://")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", testToken)
	if soon(t, func() bool {
		_, body := fetch(t, b.url()+profilePath+"goroutine?debug=1", testToken)
		return strings.Contains(body, "pprof.Profile")
	}) != nil {
		t.Fatal("the request did not begin")
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if soon(t, func() bool {
		more, err := net.Dial("tcp", addr)
		if err == nil {
			more.Close()
		}
		return err != nil
	}) != nil {
		t.Error("it takes connections after SIGTERM")
	}
	if took := b.end(t, exitInterrupted); took > 4*time.Second {
		t.Errorf("after the second signal it took %v", took)
	}
}

// TestHandlerHangs: a front whose handler heeds nothing does not keep the server from closing.
func TestHandlerHangs(t *testing.T) {
	release, in := make(chan struct{}), make(chan struct{})
	w, h := httpOn(t, nil, front{"hang", func(context.Context, *house, settings.Settings) (opened, error) {
		return opened{routes: []route{{"/hang", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(in)
			<-release
		})}}}, nil
	}})
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
	<-in
	if code, _ := fetch(t, w.url()+readyPath, ""); code != 200 {
		t.Errorf("it is not ready: %d", code)
	}
	h.leaving.Store(true)
	if code, body := fetch(t, w.url()+readyPath, ""); code != 503 || body != "stopping\n" {
		t.Errorf("while it stops: %d %s", code, body)
	}
	begun := time.Now()
	_ = w.close() // it says who was cut off
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("closing took %v", took)
	}
	close(release)
}

// TestTaken: an address that somebody else has is named, with what to do.
func TestTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command("dray", "--home", filepath.Join(t.TempDir(), "home"), "serve", "--http", l.Addr().String())
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "--http 127.0.0.1:0") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestLogs: what goes on is logged as the settings say.
func TestLogs(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	b := begin(t, home, []string{"DRAY_LOG_LEVEL=debug", "DRAY_LOG_FORMAT=json"})
	addr := strings.TrimPrefix(b.url(), "http://")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	b.end(t, exitOK)
	for line := range strings.Lines(b.stderr.String()) {
		var entry struct{ Level, Msg string }
		if !strings.HasPrefix(line, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Level == "" {
			t.Errorf("%q is no line of a log: %v", line, err)
		}
	}
	if !strings.Contains(b.stderr.String(), `"level":"INFO"`) {
		t.Errorf("nothing was logged: %s", b.stderr.String())
	}
	quiet := begin(t, home, nil)
	quiet.end(t, exitOK)
	if strings.Contains(quiet.stderr.String(), "level=") {
		t.Errorf("without settings this is logged: %s", quiet.stderr.String())
	}
}

// memory reads a value of a process from /proc, in bytes.
func memory(t *testing.T, pid int, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
