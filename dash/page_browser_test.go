//go:build browser

package dash_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// state is what the page's API says, fetched by the page.
const state = `(async () => await (await fetch("/dash/api/state")).json())()`

// shown is a part of that.
type shown struct {
	Running struct {
		List []struct {
			ID      uint64
			Name    string
			Done    int64
			Total   int64
			Stalled bool
			Gifts   []struct {
				Kind  string
				Peer  string
				Bytes int64
			}
		}
	}
	Peers struct {
		List []struct {
			ID        string
			Connected bool
			Down      float64
			Health    string
		}
	}
	Jobs struct {
		List []struct {
			ID    uint64
			State string
		}
	}
}

func (x *tab) state() shown {
	x.t.Helper()
	s, err := chromedp.Run(x.ctx, chromedp.Evaluate[shown](state, chromedp.EvalAwaitPromise))
	if err != nil {
		x.t.Fatal(err)
	}
	return s
}

// clean fails when the page complained of something, or asked anybody but its daemon.
func (x *tab) clean(d *daemon) {
	x.t.Helper()
	for _, p := range x.quiet() {
		x.t.Errorf("the console says: %s", p)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for host, n := range x.hosts {
		if host != "http://"+d.http {
			x.t.Errorf("%d requests to %s", n, host)
		}
	}
}

const quoted = `[...document.querySelectorAll(".transfer [data-part=title]")].map(e => e.textContent)`

// TestTransferOnPage watches a get from a seed with a limit, which a slower peer joins, and which then stalls.
func TestTransferOnPage(t *testing.T) {
	dir := t.TempDir()
	file, note := filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "note")
	randomFile(t, file, 64<<20)
	randomFile(t, note, 100)
	a, b, c := serve(t, "a", "--limit-up", "5MB/s"), serve(t, "b"), serve(t, "c", "--limit-up", "1MB/s")
	root := run(t, a.home, "add", "--quiet", file)
	if same := run(t, c.home, "add", "--quiet", file); same != root {
		t.Fatalf("%s is not %s", same, root)
	}
	small := run(t, b.home, "add", "--quiet", note)
	x := open(t, b)
	if !ask[bool](x, `!document.getElementById("no-transfers").hidden && document.getElementById("no-transfers").innerText.includes("HF_ENDPOINT=http://`+b.http+`")`) {
		t.Error("an empty page does not say what to do")
	}
	// The name is a peer's to choose, so it may be anything.
	hostile := `<img src=x onerror=document.title='gone'>`
	get := begin(t, b.home, "get", root, "--from", a.addr, "-o", filepath.Join(dir, hostile))
	x.until("a transfer with its name as it is", quoted+`[0] === `+strconv.Quote(hostile), 10*time.Second)
	if ask[int](x, `document.querySelectorAll('img[src="x"]').length`) != 0 {
		t.Error("a name has become an element")
	}
	x.until("some of it is there", `parseFloat(document.querySelector(".percent").textContent) > 3`, 15*time.Second)
	first := ask[float64](x, `parseFloat(document.querySelector(".percent").textContent)`)

	run(t, c.home, "get", small, "--from", b.addr, "-o", filepath.Join(dir, "note-there"))
	row := func(d *daemon) string {
		return `[...document.querySelectorAll("#peer-rows tr")].find(r => r.firstChild.title === ` + strconv.Quote(d.id) + `)`
	}
	x.until("the throttled peer in the table, with what it sends", row(c)+`?.children[2].textContent.includes("B/s")`, 20*time.Second)
	x.until("its health", `["healthy", "slow", "connected"].includes(`+row(c)+`.querySelector(".chip").textContent)`, 10*time.Second)
	x.until("two sources in the bar", `document.querySelectorAll(".bar > span").length >= 2`, 10*time.Second)
	if n := ask[int](x, `new Set([...document.querySelectorAll(".bar > span")].map(e => getComputedStyle(e).backgroundImage)).size`); n < 2 {
		t.Error("the parts of the bar differ by colour only")
	}
	pause(2 * time.Second) // so that the rates are of both
	slower := false
	last := int64(0)
	for range 10 {
		s := x.state()
		if len(s.Running.List) != 1 {
			t.Fatalf("%d transfers", len(s.Running.List))
		}
		r := s.Running.List[0]
		sum := int64(0)
		for _, g := range r.Gifts {
			sum += g.Bytes
		}
		if sum != r.Done {
			t.Errorf("%d bytes are in place, and sources gave %d", r.Done, sum)
		}
		if r.Done < last {
			t.Errorf("%d bytes after %d", r.Done, last)
		}
		last = r.Done
		rates := map[string]float64{}
		for _, p := range s.Peers.List {
			rates[p.ID] = p.Down
		}
		slower = slower || rates[c.id] > 0 && rates[c.id] < rates[a.id]
		pause(300 * time.Millisecond)
	}
	if !slower {
		t.Error("the throttled peer was never seen to be the slower one")
	}
	if now := ask[float64](x, `parseFloat(document.querySelector(".percent").textContent)`); now <= first {
		t.Errorf("%.1f %% after %.1f %%", now, first)
	}
	if text := ask[string](x, `document.querySelector(".numbers").textContent`); !strings.Contains(text, "left") || !strings.Contains(text, "MB") {
		t.Errorf("%q does not say how long the rest takes", text)
	}

	x.tell(`document.querySelector(".transfer button").click()`)
	x.until("who gives what", `document.querySelectorAll("[data-part=givers] tr").length >= 2`, 10*time.Second)
	x.until("a map with colours", `(() => { const c = document.querySelector("canvas"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
		const seen = new Set(); for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size > 3; })()`, 10*time.Second)
	if label := ask[string](x, `document.querySelector("canvas").getAttribute("aria-label")`); !strings.Contains(label, "of 64 pieces here") {
		t.Errorf("the map's words are %q", label)
	}
	x.reachable()

	a.signal(syscall.SIGSTOP)
	c.signal(syscall.SIGSTOP)
	x.until("the stall with its reason", `!document.getElementById("stalls").hidden && /waiting|no bytes|silent|asked/.test(document.getElementById("stall-list").textContent)`, 30*time.Second)
	x.until("the reason beside the transfer", `!document.querySelector(".why").hidden && document.querySelector(".why").textContent.length > 10`, 5*time.Second)
	x.until("it is said", `/stalled/.test(document.getElementById("say").textContent)`, 10*time.Second)
	a.signal(syscall.SIGCONT)
	c.signal(syscall.SIGCONT)
	x.until("it goes on", `document.getElementById("stalls").hidden`, 60*time.Second)
	x.until("its end", `document.querySelectorAll("#ended tr").length === 1 && !document.getElementById("no-transfers").hidden`, 90*time.Second)
	get.wait(t)
	if how := ask[string](x, `document.querySelector("#ended tr").lastChild.textContent`); how != "done" {
		t.Errorf("it ended: %s", how)
	}
	if title := ask[string](x, `document.title`); strings.Contains(title, "gone") {
		t.Error("a name was run")
	}
	x.clean(b)

	// A new daemon in the place of the old one.
	began := time.Now()
	b.stop()
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("with a page open, the daemon took %v to stop", d)
	}
	x.until("the page says that it is lost", `document.getElementById("live").dataset.state === "lost"`, 10*time.Second)
	b.start("/ip4/127.0.0.1/tcp/0")
	x.until("and that it is back", `document.getElementById("live").dataset.state === "live"`, 20*time.Second)
	x.until("with what the new one has", `document.querySelectorAll("#ended tr").length === 0`, 10*time.Second)
}

// reachable reports what is wrong for those who do not see the page or have no mouse.
func (x *tab) reachable() {
	x.t.Helper()
	list := ask[[]string](x, `(() => {
		const wrong = [], say = (e, what) => wrong.push(what + ": " + e.outerHTML.slice(0, 120));
		const ids = new Set();
		for (const e of document.querySelectorAll("[id]")) { if (ids.has(e.id)) say(e, "an id twice"); ids.add(e.id); }
		for (const e of document.querySelectorAll("[aria-labelledby], [aria-controls]"))
			for (const id of [e.getAttribute("aria-labelledby"), e.getAttribute("aria-controls")].filter(Boolean)) if (!ids.has(id)) say(e, "names what is not there");
		for (const e of document.querySelectorAll("img:not([alt])")) say(e, "no alt");
		for (const e of document.querySelectorAll("[role=img]")) if (!e.getAttribute("aria-label")) say(e, "no words");
		for (const e of document.querySelectorAll("table")) if (!e.caption?.textContent) say(e, "no caption");
		for (const e of document.querySelectorAll("th")) if (!e.scope) say(e, "no scope");
		for (const e of document.querySelectorAll("[role=progressbar]")) if (!e.hidden && !e.hasAttribute("aria-valuenow")) say(e, "no value");
		let level = 0;
		for (const e of document.querySelectorAll("h1, h2, h3, h4")) {
			const n = +e.tagName[1];
			if (n > level + 1) say(e, "a heading skips a level");
			level = n;
		}
		if (document.querySelectorAll("h1").length !== 1 || document.querySelectorAll("main").length !== 1) wrong.push("not one h1 and one main");
		if (document.documentElement.lang !== "en") wrong.push("no language");
		return wrong;
	})()`)
	for _, w := range list {
		x.t.Error(w)
	}
	tree, err := chromedp.Call(x.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		x.t.Fatal(err)
	}
	controls := 0
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role := strings.Trim(string(n.Role.Value), `"`)
		if !slices.Contains([]string{"button", "link", "radio", "progressbar", "image", "table", "DisclosureTriangle"}, role) {
			continue
		}
		controls++
		if n.Name == nil || strings.Trim(string(n.Name.Value), `" `) == "" {
			x.t.Errorf("a screen reader finds a %s without a name", role)
		}
	}
	if controls < 15 {
		x.t.Errorf("a screen reader finds %d controls", controls)
	}
}

// focus describes what has the focus, and what is wrong with how it shows.
const focus = `(() => {
	const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
	if (e === document.body) return "";
	const name = e.id || e.dataset.sort || e.getAttribute("href") || e.value || e.textContent.trim().slice(0, 20);
	let wrong = "";
	if (s.outlineStyle === "none" || parseFloat(s.outlineWidth) < 1) wrong = " WITHOUT OUTLINE";
	if (r.width === 0 || r.bottom < 0 || r.top > innerHeight) wrong += " OUT OF SIGHT";
	return e.tagName.toLowerCase() + " " + name + wrong;
})()`

// walk presses Tab until something has the focus.
func (x *tab) walk(what string) {
	x.t.Helper()
	var seen []string
	for range 80 {
		x.do(chromedp.KeyEvent(kb.Tab))
		at := ask[string](x, focus)
		if strings.Contains(at, what) {
			return
		}
		seen = append(seen, at)
	}
	x.t.Fatalf("Tab never came to %q, but to %q", what, seen)
}

// TestKeyboard uses the page without a mouse.
func TestKeyboard(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	randomFile(t, file, 1<<20)
	a, b := serve(t, "a"), serve(t, "b")
	root := run(t, a.home, "add", "--quiet", file)
	run(t, b.home, "get", root, "--from", a.addr, "-o", filepath.Join(dir, "here"))
	away := serve(t, "away")
	other := filepath.Join(dir, "other")
	randomFile(t, other, 1<<20)
	missing := run(t, away.home, "add", "--quiet", other)
	away.stop()
	job := run(t, b.home, "get", missing, "--from", away.addr, "-o", filepath.Join(dir, "later"), "--detach")

	x := open(t, b)
	x.scheme("light")
	x.until("a peer, a job and a transfer that ended", `document.querySelectorAll("#peer-rows tr, #job-list li, #ended tr").length >= 3`, 20*time.Second)
	x.do(chromedp.KeyEvent(kb.Tab))
	if at := ask[string](x, focus); at != "a #main" {
		t.Errorf("the first stop is %q, want the link that skips", at)
	}
	x.do(chromedp.KeyEvent(kb.Enter))
	if at := ask[string](x, `document.activeElement.id`); at != "main" {
		t.Errorf("the link that skips leads to %q", at)
	}
	x.tell(`document.querySelector(".skip").focus()`)
	var stops []string
	for range 80 {
		x.do(chromedp.KeyEvent(kb.Tab))
		at := ask[string](x, focus)
		if at == "" || strings.HasSuffix(at, "#main") {
			break
		}
		if strings.Contains(at, "WITHOUT") || strings.Contains(at, "OUT OF") {
			t.Errorf("%s", at)
		}
		stops = append(stops, at)
	}
	want := []string{
		"#transfers", "#peers", "#store", "#jobs", "#events", "theme", "copy", "summary", "peers-box", "id", "path", "down", "up", "received", "sent",
		"rtt_ms", "health", "Pause", "Cancel", "all", "events-box",
	}
	at := 0
	for _, w := range want {
		i := slices.IndexFunc(stops[at:], func(s string) bool { return strings.HasSuffix(s, " "+w) || strings.HasPrefix(s, w+" ") })
		if i < 0 {
			t.Errorf("%q is not among the stops after %q: %q", w, stops[max(at-1, 0)], stops)
			continue
		}
		at += i
	}

	x.walk("button theme")
	x.do(chromedp.KeyEvent(kb.Enter))
	x.do(chromedp.KeyEvent(" "))
	if theme := ask[string](x, `document.documentElement.dataset.theme + " " + getComputedStyle(document.body).backgroundColor`); theme != "dark rgb(14, 19, 24)" {
		t.Errorf("the theme is %s, want dark", theme)
	}
	x.do(chromedp.Navigate("http://" + b.http + "/dash/"))
	x.until("the page is ready, with the theme that was chosen", `document.documentElement?.dataset.ready === "yes" && document.documentElement.dataset.theme === "dark"`, 10*time.Second)
	x.walk("button id")
	x.do(chromedp.KeyEvent(kb.Enter))
	if s := ask[string](x, `document.querySelector("[data-sort=id]").parentElement.ariaSort`); s != "ascending" {
		t.Errorf("the peers are sorted: %s", s)
	}
	x.until("the job waits", `document.querySelector("#job-list")?.textContent.includes("Cancel")`, 20*time.Second)
	x.walk("button Cancel")
	x.do(chromedp.KeyEvent(kb.Enter))
	x.until("it asks", `document.getElementById("ask").open`, 5*time.Second)
	x.do(chromedp.KeyEvent(kb.Escape))
	x.until("it asks no more", `!document.getElementById("ask").open`, 5*time.Second)
	if s := x.state(); len(s.Jobs.List) != 1 || s.Jobs.List[0].State == "cancelled" {
		t.Errorf("%+v: the job was to stay", s.Jobs)
	}
	x.do(chromedp.KeyEvent(kb.Enter)) // the focus is back at the button
	x.until("it asks again", `document.getElementById("ask").open`, 5*time.Second)
	x.walk("button yes")
	x.do(chromedp.KeyEvent(kb.Enter))
	x.until("the job is cancelled", `document.querySelector("#job-list .chip")?.textContent === "cancelled"`, 10*time.Second)
	x.until("the log has it", `document.getElementById("event-list").textContent.includes("job `+job+` is cancelled")`, 10*time.Second)
	x.reachable()
	x.clean(b)
}

// TestToken logs in, and is asked again when the session is over.
func TestToken(t *testing.T) {
	const token = "a-token-of-this-test-0123"
	b := serveWith(t, []string{"DRAY_HTTP_TOKEN=" + token}, "b")
	x := launch(t)
	x.do(chromedp.Navigate("http://" + b.http + "/"))
	x.until("a form that asks for the token", `document.readyState === "complete" && document.activeElement?.type === "password"`, 10*time.Second)
	x.do(chromedp.KeyEvent("not-the-token-at-all" + kb.Enter))
	x.until("a word on the wrong one", `document.querySelector("[role=alert]").textContent.includes("not the daemon's token")`, 10*time.Second)
	x.tell(`document.querySelector("input").value = ""; document.querySelector("input").focus()`)
	x.do(chromedp.KeyEvent(token + kb.Enter))
	x.until("the page", ready, 10*time.Second)
	x.until("news", `document.getElementById("live").dataset.state === "live"`, 10*time.Second)
	x.quiet() // the browser tells of each 401
	if ask[string](x, `document.cookie`) != "" {
		t.Error("scripts can read the session")
	}
	b.stop() // a session lasts as long as the daemon
	b.start("/ip4/127.0.0.1/tcp/0")
	x.until("the form again, complete", `document.readyState === "complete" && document.activeElement?.type === "password"`, 30*time.Second)
	x.do(chromedp.KeyEvent(token + kb.Enter))
	x.until("the page again", ready, 10*time.Second)
}

// TestSmall looks for what does not fit: on a telephone, at twice the size, and with both themes.
func TestSmall(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, strings.Repeat("a-long-name-", 12))
	randomFile(t, file, 24<<20)
	a, b := serve(t, "a", "--limit-up", "2MB/s"), serve(t, "b")
	root := run(t, a.home, "add", "--quiet", file)
	x := open(t, b)
	_ = begin(t, b.home, "get", root, "--from", a.addr, "-o", filepath.Join(dir, "here-"+strings.Repeat("longer", 20)))
	x.until("a transfer", `document.querySelector(".transfer button")`, 10*time.Second)
	x.tell(`document.querySelector(".transfer button").click(); document.getElementById("about").open = true`)
	x.until("its pieces", `document.querySelectorAll("[data-part=givers] tr").length > 0`, 10*time.Second)
	for _, v := range []struct {
		width int64
		scale float64
	}{{360, 1}, {320, 1}, {640, 2}, {1280, 1}, {2560, 1}} {
		for _, theme := range []string{"light", "dark"} {
			x.scheme(theme)
			x.do(chromedp.EmulateViewport(v.width, 800, chromedp.EmulateScale(v.scale)))
			pause(200 * time.Millisecond)
			if over := ask[int64](x, `document.documentElement.scrollWidth`); over > v.width {
				t.Errorf("%s, %d wide: the page is %d wide; %s", theme, v.width, over, ask[string](x, `[...document.querySelectorAll("main *")].filter(e =>
					e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll")).map(e => e.tagName + "." + e.className).slice(0, 5).join()`))
			}
			if small := ask[[]string](x, `[...document.querySelectorAll("button, summary, nav a")].filter(e => e.offsetParent && !e.closest("th"))
				.filter(e => e.getBoundingClientRect().height < 20).map(e => e.textContent)`); len(small) > 0 {
				t.Errorf("%d wide: too small to hit: %q", v.width, small)
			}
		}
	}
	x.clean(b)
}

// TestScreenshots makes the pictures of the docs, where DRAY_SCREENSHOTS names a directory.
func TestScreenshots(t *testing.T) {
	dir, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a, b := serve(t, "a", "--limit-up", "5MB/s"), serve(t, "b", "--quota", "50GB", "--limit-up", "3MB/s")
	c, d, e := serve(t, "c", "--limit-up", "1500kB/s"), serve(t, "d", "--limit-up", "3MB/s"), serve(t, "e", "--limit-up", "4MB/s")
	model, data := filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "dataset.parquet")
	randomFile(t, model, 192<<20)
	randomFile(t, data, 96<<20)
	note := filepath.Join(dir, "note")
	randomFile(t, note, 1000)
	root := run(t, a.home, "add", "--quiet", model)
	for _, y := range []*daemon{c, d} {
		run(t, y.home, "add", "--quiet", model)
	}
	other := run(t, e.home, "add", "--quiet", data)
	x := open(t, b)
	x.scheme("light")
	x.shoot("page-empty", 1280, 860)
	for i, y := range []*daemon{a, c} {
		run(t, b.home, "get", run(t, y.home, "add", "--quiet", note), "--from", y.addr, "-o", filepath.Join(dir, fmt.Sprint("note", i)))
	}
	here := filepath.Join(dir, "models")
	if err := os.MkdirAll(here, 0o755); err != nil {
		t.Fatal(err)
	}
	first := begin(t, b.home, "get", root, "--from", a.addr, "--from", c.addr, "-o", filepath.Join(here, "model.safetensors"))
	pause(4 * time.Second)
	_ = first.cmd.Process.Signal(syscall.SIGINT) // so that the second attempt finds something here
	first.wg.Wait()
	_ = begin(t, b.home, "get", root, "--from", a.addr, "--from", c.addr, "--from", d.addr, "-o", filepath.Join(here, "model.safetensors"))
	run(t, b.home, "get", other, "--from", e.addr, "-o", filepath.Join(here, "dataset.parquet"), "--detach")
	given := filepath.Join(dir, "weights.gguf")
	randomFile(t, given, 64<<20)
	_ = begin(t, c.home, "get", run(t, b.home, "add", "--quiet", given), "--from", b.addr, "-o", filepath.Join(dir, "there"))
	x.until("two transfers", `document.querySelectorAll(".transfer").length >= 2`, 20*time.Second)
	x.tell(`[...document.querySelectorAll(".transfer")].find(e => e.textContent.includes("model.safetensors")).querySelector("button").click()`)
	pause(7 * time.Second)
	x.shoot("page-light", 1280, 1560)
	x.scheme("dark")
	x.shoot("page-dark", 1280, 1560)
	x.shoot("page-narrow", 390, 1500)
	x.scheme("light")
	for _, y := range []*daemon{a, c, d} {
		y.signal(syscall.SIGSTOP)
	}
	x.until("a stall", `!document.getElementById("stalls").hidden`, 30*time.Second)
	pause(2 * time.Second)
	x.shoot("page-stalled", 1280, 760)
	x.clean(b)
}
