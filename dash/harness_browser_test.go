//go:build browser

package dash_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// program is dray, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "dray-page-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "dray")
	out, err := exec.Command("go", "build", "-o", path, "dray/cmd/dray").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// daemon is a dray that serves.
type daemon struct {
	t    *testing.T
	home string
	http string // host and port
	addr string // of its swarm, with its id
	id   string
	args []string
	env  []string
	cmd  *exec.Cmd
	wg   sync.WaitGroup
}

func dray(t *testing.T, home string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, append([]string{"--home", home}, args...)...)
	c.Env = append(os.Environ(), "DRAY_HTTP_LISTEN=127.0.0.1:0")
	return c
}

// run runs a command to its end and returns what it prints.
func run(t *testing.T, home string, args ...string) string {
	t.Helper()
	c := dray(t, home, args...)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("dray %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

func serve(t *testing.T, name string, args ...string) *daemon {
	t.Helper()
	return serveWith(t, nil, name, args...)
}

// serveWith starts a daemon with more variables in its environment.
func serveWith(t *testing.T, env []string, name string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, home: filepath.Join(t.TempDir(), name), args: args, env: env, http: freePort(t)}
	d.start("/ip4/127.0.0.1/tcp/0")
	t.Cleanup(d.stop)
	return d
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (d *daemon) start(listen string) {
	d.t.Helper()
	d.cmd = dray(d.t, d.home, append([]string{"serve", "--json", "--listen", listen, "--http", d.http}, d.args...)...)
	d.cmd.Env = append(d.cmd.Env, d.env...)
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	errs, err := d.cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	said := make(chan string, 1) // the first line, which comes when all listen; or what it complained of
	d.wg.Go(func() {
		last := ""
		for s := bufio.NewScanner(errs); s.Scan(); {
			last = s.Text()
		}
		select {
		case said <- last:
		default:
		}
	})
	d.wg.Go(func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case said <- s.Text():
			default:
			}
		}
	})
	first := ""
	select {
	case first = <-said:
	case <-time.After(30 * time.Second):
		d.t.Fatal("the daemon is not ready after 30 s")
	}
	var who struct {
		Peer  string   `json:"peer"`
		Addrs []string `json:"addrs"`
	}
	if err := json.Unmarshal([]byte(first), &who); err != nil || len(who.Addrs) == 0 {
		d.t.Fatalf("%v: %s", err, first)
	}
	d.id, d.addr = who.Peer, who.Addrs[0]
}

func (d *daemon) signal(s syscall.Signal) {
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGCONT)
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	d.wg.Wait()
	_ = d.cmd.Wait()
	d.cmd = nil
}

// background is a command that runs beside the test.
type background struct {
	cmd *exec.Cmd
	out strings.Builder
	err error
	wg  sync.WaitGroup
}

func begin(t *testing.T, home string, args ...string) *background {
	t.Helper()
	b := &background{cmd: dray(t, home, args...)}
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.wg.Go(func() { b.err = b.cmd.Wait() })
	t.Cleanup(func() { _ = b.cmd.Process.Kill(); b.wg.Wait() })
	return b
}

func (b *background) wait(t *testing.T) {
	t.Helper()
	b.wg.Wait()
	if b.err != nil {
		t.Fatalf("%s: %v: %s", b.cmd, b.err, b.out.String())
	}
}

// randomFile writes a file whose bytes are the same each time.
func randomFile(t *testing.T, path string, size int) {
	t.Helper()
	data := make([]byte, size)
	var seed [32]byte
	copy(seed[:], filepath.Base(path))
	rand.NewChaCha8(seed).Read(data)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// tab is a page in a browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
	hosts    map[string]int
}

// open starts a browser with an empty profile and has it show a daemon's page.
func open(t *testing.T, d *daemon) *tab {
	t.Helper()
	x := launch(t)
	x.do(chromedp.Navigate("http://" + d.http + "/"))
	x.until("the page is ready", ready, 20*time.Second)
	return x
}

const ready = `document.documentElement?.dataset.ready === "yes"`

// launch starts a browser with an empty profile.
func launch(t *testing.T) *tab {
	t.Helper()
	browser := os.Getenv("DRAY_CHROMIUM")
	if browser == "" {
		browser = "chromium"
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(browser), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 900))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	x := &tab{t: t, ctx: ctx, hosts: map[string]int{}}
	if err := chromedp.Listen(ctx, x.hear); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	x.do(chromedp.EmulateViewport(1280, 900))
	return x
}

// hear collects what a page must not do.
func (x *tab) hear(e any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch e := e.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			text, _ := json.Marshal(e.Args)
			x.problems = append(x.problems, string(text))
		}
	case *runtime.EventExceptionThrown:
		text, _ := json.Marshal(e.ExceptionDetails)
		x.problems = append(x.problems, string(text))
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			x.problems = append(x.problems, e.Entry.Text+" "+e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" {
			x.hosts[u.Scheme+"://"+u.Host]++
		}
	}
}

// quiet takes what was collected so far, and forgets it.
func (x *tab) quiet() (problems []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	problems, x.problems = x.problems, nil
	return problems
}

func (x *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	x.t.Helper()
	if err := chromedp.Do(x.ctx, steps...); err != nil {
		x.t.Fatal(err)
	}
}

// ask evaluates JavaScript.
func ask[T any](x *tab, script string) T {
	x.t.Helper()
	v, err := chromedp.Run(x.ctx, chromedp.Evaluate[T](script))
	if err != nil {
		x.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// tell evaluates JavaScript for its effect.
func (x *tab) tell(script string) { ask[bool](x, "(() => { "+script+"; return true; })()") }

// until waits for a condition in JavaScript.
func (x *tab) until(what, script string, most time.Duration) {
	x.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(most); ; <-tick.C {
		if ask[bool](x, "!!("+script+")") {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("%s: not within %v; the page says: %.4000s", what, most, ask[string](x, `document.body.innerText`))
		}
	}
}

// scheme makes the system's theme light or dark.
func (x *tab) scheme(name string) {
	x.t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}
	if _, err := chromedp.Call(x.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		x.t.Fatal(err)
	}
}

// shoot writes a picture of the page, at most so high, to the directory that DRAY_SCREENSHOTS names, or else nowhere that stays.
func (x *tab) shoot(name string, width, height int64) {
	x.t.Helper()
	x.do(chromedp.EmulateViewport(width, height))
	x.tell(`dispatchEvent(new Event("resize")); scrollTo(0, 0)`)
	pause(300 * time.Millisecond)
	r, err := chromedp.Call(x.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{})
	if err != nil {
		x.t.Fatal(err)
	}
	if len(r.Data) > 250_000 {
		x.t.Errorf("%s has %d bytes, which is too much for the docs", name, len(r.Data))
	}
	dir := os.Getenv("DRAY_SCREENSHOTS")
	if dir == "" {
		dir = x.t.TempDir()
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), r.Data, 0o644); err != nil {
		x.t.Fatal(err)
	}
}

// pause lets a browser draw.
func pause(d time.Duration) { <-time.After(d) }
