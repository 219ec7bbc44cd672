package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/names"
)

// hubHost is a daemon with a Hub, in this process.
type hubHost struct {
	t *testing.T
	*daemon
	env  *env
	home string
	logs *lockedBuffer
	stop func()
}

// lockedBuffer is a buffer that several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startHub starts a daemon on a home, which it makes if need be, connected to others.
func startHub(t *testing.T, home string, others ...*hubHost) *hubHost {
	t.Helper()
	for _, x := range []string{"DRAY_REACH_LAN=false", "DRAY_REACH_DHT=off", "DRAY_REACH_MAP_PORTS=false"} { // it knows whom it is told
		name, value, _ := strings.Cut(x, "=")
		t.Setenv(name, value)
	}
	h := &hubHost{t: t, home: home, logs: new(lockedBuffer)}
	h.env = &env{stdout: io.Discard, stderr: h.logs, quiet: true, homeFlag: home, http: "127.0.0.1:0"}
	for _, o := range others {
		h.env.named = append(h.env.named, o.house.identity().Addrs...)
	}
	var err error
	if h.daemon, err = startDaemon(t.Context(), h.env, []string{"/ip4/127.0.0.1/tcp/0"}); err != nil {
		t.Fatal(err)
	}
	if h.http, err = serveHTTP(t.Context(), h.house, h.settings.Settings); err != nil {
		t.Fatal(err)
	}
	h.stop = sync.OnceFunc(func() {
		if err := h.close(); err != nil {
			t.Errorf("closing %s: %v", filepath.Base(home), err)
		}
	})
	t.Cleanup(h.stop)
	h.eventually("be connected", func() bool { return len(h.house.node.Peers()) >= len(others) })
	return h
}

// eventually waits until something is so.
func (h *hubHost) eventually(what string, is func() bool) {
	h.t.Helper()
	for until := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(until) {
			h.t.Fatalf("%s does not %s: %s", filepath.Base(h.home), what, h.logs)
		}
		_ = pause(h.t.Context(), 10*time.Millisecond)
	}
}

// trust makes a home trust another.
func (h *hubHost) trusts(o *hubHost, pattern string) {
	h.t.Helper()
	if err := runTrustAdd(h.env, o.house.identity().Peer, pattern); err != nil {
		h.t.Fatal(err)
	}
}

// publish shares a directory under a name.
func (h *hubHost) publish(dir, repo string, change ...func(*addRequest)) publishResult {
	h.t.Helper()
	q := addRequest{Path: dir, Profile: "native"}
	for _, c := range change {
		c(&q)
	}
	added, err := taskAdd.do(h.t.Context(), h.house, q, pipes[addNote]{})
	if err != nil {
		h.t.Fatal(err)
	}
	o := repoOptions{name: repo}
	p, err := o.request()
	if err != nil {
		h.t.Fatal(err)
	}
	p.Root, p.Path, p.Copied = added.CID, dir, q.Copy
	r, err := taskPublish.do(h.t.Context(), h.house, *p, pipes[addNote]{})
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *hubHost) get(path string, headers ...string) (*http.Response, []byte) {
	h.t.Helper()
	resp, body, err := download(h.t, "http://"+h.http.addr+path, headers...)
	if err != nil {
		h.t.Fatalf("GET %s: %v after %d bytes: %s", path, err, len(body), h.logs)
	}
	return resp, body
}

func (h *hubHost) wants(path string, status int, code string) []byte {
	h.t.Helper()
	resp, body := h.get(path)
	if resp.StatusCode != status || resp.Header.Get("X-Error-Code") != code {
		h.t.Fatalf("GET %s: %s %s %s: %s", path, resp.Status, resp.Header.Get("X-Error-Code"), body[:min(len(body), 300)], h.logs)
	}
	return body
}

// received returns how many bytes came from peers.
func (h *hubHost) received() int64 { return h.house.node.Load().Received }

func noise(seed, n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
	return data
}

func writeFiles(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for path, data := range files {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// A publishes, B knows A and trusts it, C knows B alone: all serve the same, and what went through B stays there.
func TestHubSwarm(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{
		"README.md": []byte("# hello\n"), "empty": {}, "sub/x.txt": []byte("x"), "weights.bin": noise(1, 20<<20),
	}
	writeFiles(t, filepath.Join(dir, "model"), files)
	a := startHub(t, filepath.Join(dir, "a"))
	first := a.publish(filepath.Join(dir, "model"), "org/model")
	if again := a.publish(filepath.Join(dir, "model"), "org/model"); !again.Unchanged || again.Commit != first.Commit || again.Hashed != 0 {
		t.Errorf("published again: %+v", again)
	}
	b := startHub(t, filepath.Join(dir, "b"), a)
	text := b.wants("/api/models/org/model", 404, "RepoNotFound")
	if !strings.Contains(string(text), "dray trust add "+a.house.identity().Peer) {
		t.Errorf("whom to trust is not said: %s", text)
	}
	b.trusts(a, "org/*")
	var about struct{ SHA string }
	if err := json.Unmarshal(b.wants("/api/models/org/model/revision/main", 200, ""), &about); err != nil || about.SHA != first.Commit {
		t.Fatalf("the commit is %q, %v, not %s", about.SHA, err, first.Commit)
	}
	b.wants("/api/models/org/model/revision/v2", 404, "RevisionNotFound")
	b.wants("/api/models/org/other", 404, "RepoNotFound")

	// The end of a file comes without what stands before it.
	before := b.received()
	resp, tail := b.get("/org/model/resolve/"+about.SHA+"/weights.bin", "Range", fmt.Sprintf("bytes=%d-", 20<<20-1000))
	if resp.StatusCode != 206 || !bytes.Equal(tail, files["weights.bin"][20<<20-1000:]) {
		t.Errorf("the tail: %s, %d bytes", resp.Status, len(tail))
	}
	if n := b.received() - before; n > 8<<20 {
		t.Errorf("%d bytes came for the last 1000", n)
	}
	// Several clients at once are one transfer.
	before = b.received()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			resp, err := http.Get("http://" + b.http.addr + "/org/model/resolve/main/weights.bin")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(body, files["weights.bin"]) {
				t.Errorf("%d bytes came, %v", len(body), err)
			}
		})
	}
	wg.Wait()
	if n := b.received() - before; n > 25<<20 { // and not 80 MiB; a little may come twice on a busy machine
		t.Errorf("%d bytes came for four readers of %d", n, 20<<20)
	}
	for path, want := range files {
		if _, got := b.get("/org/model/resolve/main/" + path); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d", path, len(got), len(want))
		}
	}
	a.stop()

	// C has never heard of A but by its key.
	c := startHub(t, filepath.Join(dir, "c"), b)
	c.trusts(a, "")
	for path, want := range files {
		if _, got := c.get("/org/model/resolve/main/" + path); !bytes.Equal(got, want) {
			t.Errorf("third hand, %s: %d bytes, want %d", path, len(got), len(want))
		}
	}
	// What came is kept as what was got once, and survives a restart without anybody else.
	c.stop()
	b.stop()
	d := startHub(t, filepath.Join(dir, "c"))
	for path, want := range files {
		if _, got := d.get("/org/model/resolve/main/" + path); !bytes.Equal(got, want) {
			t.Errorf("alone, %s: %d bytes, want %d", path, len(got), len(want))
		}
	}
	roots, err := d.house.store.Roots(t.Context())
	if err != nil || len(roots) < 3 {
		t.Fatalf("%d roots, %v", len(roots), err)
	}
	for _, r := range roots {
		if !r.Collectable() {
			t.Errorf("the root %v is kept as %q", r.CID, r.Mode)
		}
	}
	if r, err := d.house.collect(t.Context(), quota{Bytes: 0}, false); err != nil || r.After != 0 || len(r.Roots) != len(roots) {
		t.Errorf("collected: %+v, %v", r, err)
	}
	d.wants("/org/model/resolve/main/weights.bin", 502, "")
}

// A commit is found by its id when the branch has moved on, until the name is taken back.
func TestHubHistory(t *testing.T) {
	dir := t.TempDir()
	model := filepath.Join(dir, "model")
	writeFiles(t, model, map[string][]byte{"a.txt": []byte("one"), "big.bin": noise(2, 1<<20)})
	a := startHub(t, filepath.Join(dir, "a"))
	one := a.publish(model, "org/model", func(q *addRequest) { q.Copy = true })
	writeFiles(t, model, map[string][]byte{"a.txt": []byte("two")})
	two := a.publish(model, "org/model", func(q *addRequest) { q.Copy = true })
	if one.Commit == two.Commit || two.Hashed != 3 {
		t.Errorf("the second commit: %+v after %+v", two, one)
	}
	b := startHub(t, filepath.Join(dir, "b"), a)
	b.trusts(a, "")
	for revision, want := range map[string]string{"main": "two", one.Commit: "one", two.Commit: "two"} {
		if _, got := b.get("/org/model/resolve/" + revision + "/a.txt"); string(got) != want {
			t.Errorf("%s has %q, want %q", revision, got, want)
		}
	}
	a.stop()
	a = startHub(t, filepath.Join(dir, "a"))
	if _, got := a.get("/org/model/resolve/" + one.Commit + "/a.txt"); string(got) != "one" {
		t.Errorf("after a restart: %q", got)
	}
	if _, err := taskReposRemove.do(t.Context(), a.house, removedRepo{Repo: "org/model", Name: "org/model"}, pipes[nothing]{}); err != nil {
		t.Fatal(err)
	}
	a.wants("/org/model/resolve/main/a.txt", 404, "RepoNotFound")
	a.wants("/org/model/resolve/"+one.Commit+"/a.txt", 404, "RepoNotFound")
	_, err := taskReposRemove.do(t.Context(), a.house, removedRepo{Repo: "org/model", Name: "org/model"}, pipes[nothing]{})
	if !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

// What is private is not served over HTTP, and not told to strangers; members are told.
func TestHubPrivate(t *testing.T) {
	dir := t.TempDir()
	model := filepath.Join(dir, "model")
	writeFiles(t, model, map[string][]byte{"a.txt": []byte("secret")})
	a := startHub(t, filepath.Join(dir, "a"))
	a.publish(model, "org/private", func(q *addRequest) { q.Share = sharePrivate })
	writeFiles(t, model, map[string][]byte{"a.txt": []byte("for us")})
	a.publish(model, "org/members", func(q *addRequest) { q.Share = shareMembers })
	stranger, member := startHub(t, filepath.Join(dir, "s"), a), startHub(t, filepath.Join(dir, "m"), a)
	a.env.quiet = true
	if err := runMembersAdd(t.Context(), a.env, []string{member.house.identity().Peer}); err != nil {
		t.Fatal(err)
	}
	a.house.readMembersAgain()
	for _, h := range []*hubHost{stranger, member} {
		h.trusts(a, "")
	}
	a.wants("/api/models/org/private", 403, "GatedRepo")
	a.wants("/org/members/resolve/main/a.txt", 403, "GatedRepo")
	if body := a.wants("/api/models", 200, ""); strings.TrimSpace(string(body)) != "[]" {
		t.Errorf("listed: %s", body)
	}
	for _, repo := range []string{"org/private", "org/members"} {
		if body := stranger.wants("/api/models/"+repo, 404, "RepoNotFound"); strings.Contains(string(body), "published by") {
			t.Errorf("a stranger is told: %s", body)
		}
	}
	member.wants("/api/models/org/private", 404, "RepoNotFound")
	if body := member.wants("/org/members/resolve/main/a.txt", 200, ""); string(body) != "for us" {
		t.Errorf("a member got %q", body)
	}
}

// A peer that signs what is not so, or answers what nobody asked, changes nothing.
func TestHubLiar(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, filepath.Join(dir, "m"), map[string][]byte{"a.txt": []byte("a")})
	a, b := startHub(t, filepath.Join(dir, "a")), (*hubHost)(nil)
	good := a.publish(filepath.Join(dir, "m"), "org/model")
	b = startHub(t, filepath.Join(dir, "b"), a)
	// B has the record of A, and changes what it says.
	b.trusts(a, "")
	b.wants("/api/models/org/model", 200, "")
	repo := names.Repo{Name: "org/model"}
	for _, r := range b.house.repos.published.Records() {
		forged := *r
		forged.Commit, forged.Sequence = strings.Repeat("0", 40), r.Sequence+1
		b.house.repos.published.Learn(&forged)
	}
	c := startHub(t, filepath.Join(dir, "c"), b)
	c.trusts(a, "")
	c.wants("/api/models/org/model", 404, "RepoNotFound")
	// B signs that it has the repository: nobody trusts B.
	x := names.Record{Repo: repo, Revision: "main", Commit: good.Commit, Block: decodeCID(t, good.CID), Time: time.Now().UTC().Truncate(time.Millisecond)}
	if err := b.house.repos.sign(&x); err != nil {
		t.Fatal(err)
	}
	d := startHub(t, filepath.Join(dir, "d"), b)
	d.trusts(a, "")
	body := d.wants("/api/models/org/model", 404, "RepoNotFound")
	if !strings.Contains(string(body), b.house.identity().Peer) {
		t.Errorf("who else says so is not said: %s", body)
	}
	// A trusted key that names another repository's commit is not believed either.
	other := x
	other.Repo.Name = "org/other"
	if err := a.house.repos.sign(&other); err != nil {
		t.Fatal(err)
	}
	a.wants("/api/models/org/other", 502, "")
}

// What a stranger sends on the protocol of names is bounded, and answered only if it is a question.
func TestNamesProtocol(t *testing.T) {
	dir := t.TempDir()
	a := startHub(t, filepath.Join(dir, "a"))
	b := startHub(t, filepath.Join(dir, "b"), a)
	peer := b.house.finders.lasting()[0]
	for _, x := range []struct {
		text string
		ok   bool
	}{
		{string((&names.Question{Repo: names.Repo{Name: "org/model"}, Revision: "main"}).Encode()), true},
		{string((&names.Question{Repo: names.Repo{Name: "../model"}, Revision: "main"}).Encode()), false},
		{"", false},
		{strings.Repeat("x", names.MaxQuestion+1), false},
		{strings.Repeat("\xff", 100), false},
	} {
		s, err := b.house.node.Call(t.Context(), peer, namesProtocol)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
		_ = writeSized(s, []byte(x.text)) // it may be reset already
		answer, err := readSized(s, names.MaxAnswerBytes)
		if (err == nil) != x.ok || x.ok && string(answer) != "\x00" {
			t.Errorf("%.30q: %q, %v", x.text, answer, err)
		}
		s.Reset()
	}
}

// A reader who goes away leaves nothing running.
func TestHubReaderLeaves(t *testing.T) {
	dir := t.TempDir()
	data := noise(3, 30<<20)
	writeFiles(t, filepath.Join(dir, "m"), map[string][]byte{"w.bin": data})
	a := startHub(t, filepath.Join(dir, "a"))
	a.publish(filepath.Join(dir, "m"), "org/model")
	b := startHub(t, filepath.Join(dir, "b"), a)
	b.trusts(a, "")
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.http.addr+"/org/model/resolve/main/w.bin", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	if _, got := b.get("/org/model/resolve/main/w.bin"); !bytes.Equal(got, data) {
		t.Errorf("the next reader got %d bytes", len(got))
	}
	repos := b.house.repos
	b.eventually("be done", func() bool {
		repos.mu.Lock()
		defer repos.mu.Unlock()
		return len(repos.fetch) == 0
	})
}

func decodeCID(t *testing.T, s string) cid.Cid {
	t.Helper()
	c, err := cid.Decode(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
