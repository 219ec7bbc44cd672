//go:build npm

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// These tests let the real client of the Hub for JavaScript download from daemons that are processes of their own. `make npm`
// installs it and names its directory in DRAY_NPM.

// daemonProcess is a `dray serve`.
type daemonProcess struct {
	t                *testing.T
	dray, home       string
	peer, addr, http string
}

func buildDray(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dray")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// startProcess starts a daemon and waits until it says where it is.
func startProcess(t *testing.T, dray, home string, args ...string) *daemonProcess {
	t.Helper()
	d := &daemonProcess{t: t, dray: dray, home: home}
	c := exec.Command(dray, append([]string{"--home", home, "serve", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"}, args...)...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	logs := new(lockedBuffer)
	c.Stderr = logs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var (
		wg    sync.WaitGroup
		lines lockedBuffer
	)
	wg.Go(func() { _, _ = io.Copy(&lines, out) }) // until the process ends
	t.Cleanup(func() {
		_ = c.Process.Kill()
		wg.Wait()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(home), logs)
		}
	})
	for until := time.Now().Add(30 * time.Second); d.http == "" || d.addr == ""; {
		if time.Now().After(until) {
			t.Fatalf("%s does not say where it is: %s", home, logs)
		}
		for line := range strings.Lines(lines.String() + logs.String()) {
			line = strings.TrimSpace(line)
			if x, ok := strings.CutPrefix(line, "peer "); ok {
				d.peer = x
			} else if strings.HasPrefix(line, "/ip4/") {
				d.addr = line
			} else if strings.HasPrefix(line, "http://") {
				d.http, _, _ = strings.Cut(line, " ")
			}
		}
		_ = pause(t.Context(), 20*time.Millisecond)
	}
	return d
}

// run runs a command on the daemon's home.
func (d *daemonProcess) run(args ...string) {
	d.t.Helper()
	if out, err := exec.CommandContext(d.t.Context(), d.dray, append([]string{"--home", d.home}, args...)...).CombinedOutput(); err != nil {
		d.t.Fatalf("dray %q: %v: %s", args, err, out)
	}
}

// node runs testdata/npm/hub.mjs against the daemon.
func (d *daemonProcess) node(result any, repo, cache string, actions ...string) {
	d.t.Helper()
	dir := os.Getenv("DRAY_NPM")
	c := exec.CommandContext(d.t.Context(), "node", append([]string{filepath.Join(dir, "hub.mjs"), d.http, repo, cache}, actions...)...)
	c.Dir = dir
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		d.t.Fatalf("node %q: %v: %s", actions, err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		d.t.Fatalf("%v: %s", err, out.String())
	}
}

// received returns how many bytes of blocks came from the peers that are connected.
func (d *daemonProcess) received() int64 {
	d.t.Helper()
	out, err := exec.CommandContext(d.t.Context(), d.dray, "--home", d.home, "peers", "--json").Output()
	if err != nil {
		d.t.Fatal(err)
	}
	var sum int64
	for line := range bytes.Lines(out) {
		var p struct {
			Received int64 `json:"received"`
		}
		if err := json.Unmarshal(line, &p); err != nil {
			d.t.Fatalf("%v: %s", err, line)
		}
		sum += p.Received
	}
	return sum
}

// npmModel is a repository with all that the client looks at; its safetensors file has two tensors.
func npmModel() map[string][]byte {
	header := []byte(`{"a":{"dtype":"F32","shape":[1000,1000],"data_offsets":[0,4000000]},"b":{"dtype":"U8","shape":[3000001],"data_offsets":[4000000,7000001]}}`)
	weights := append([]byte{byte(len(header)), 0, 0, 0, 0, 0, 0, 0}, header...)
	weights = append(weights, noise(7, 7_000_001)...)
	return map[string][]byte{
		"README.md":         []byte("---\nlicense: mit\npipeline_tag: text-generation\n---\n# A model\n"),
		"config.json":       []byte(`{"model_type":"llama","architectures":["LlamaForCausalLM"]}`),
		"empty.txt":         {},
		"model.safetensors": weights,
		"sub/deep/x.txt":    []byte("x"),
		"sub/tokens.json":   bytes.Repeat([]byte("[1,2,3]\n"), 100_000),
	}
}

func digests(files map[string][]byte) map[string]string {
	m := make(map[string]string)
	for path, data := range files {
		m[path] = sumOf(data)
	}
	return m
}

func TestNPM(t *testing.T) {
	dir := t.TempDir()
	dray := buildDray(t)
	files := npmModel()
	model := filepath.Join(dir, "model")
	writeFiles(t, model, files)
	a := startProcess(t, dray, filepath.Join(dir, "a"))
	a.run("share", model, "--repo", "org/model")
	a.run("share", model, "--repo", "org/rows", "--dataset")
	a.run("share", filepath.Join(model, "sub"), "--repo", "org/model", "--revision", "refs/pr/1")
	b := startProcess(t, dray, filepath.Join(dir, "b"), "--peer", a.addr, "--trust", a.peer+"=org/*", "--trust", a.peer+"=datasets/org/*")

	var got struct {
		Info struct {
			Name, SHA, Task string
			Tags            []string
		}
		List, Top []struct {
			Type, Path, OID string
			Size            int64
			LFS             *struct{ OID string }
		}
		Models  []struct{ Name, SHA string }
		Commits []struct{ OID string }
		Paths   []struct{ Path, Type string }
		Slice   struct {
			Size       int64
			Head, Tail string
		}
		Raw     string
		Missing struct {
			File         any
			Exists, Repo bool
			Revision     int
		}
		Safetensors struct {
			Sharded bool
			Tensors []string
			Count   map[string]int64
		}
		Snapshot map[string]string
	}
	b.node(&got, "org/model", filepath.Join(dir, "cache"), "info", "list", "top", "models", "commits", "paths", "slice", "raw", "missing", "safetensors",
		"snapshot")
	weights := files["model.safetensors"]
	if got.Info.Name != "org/model" || len(got.Info.SHA) != 40 || got.Info.Task != "text-generation" || !slices.Contains(got.Info.Tags, "license:mit") {
		t.Errorf("info: %+v", got.Info)
	}
	var paths []string
	for _, x := range got.List {
		paths = append(paths, x.Path)
		if data, ok := files[x.Path]; ok != (x.Type == "file") || x.Size != int64(len(data)) || len(x.OID) != 40 {
			t.Errorf("listed: %+v", x)
		}
		if x.Path == "model.safetensors" && (x.LFS == nil || x.LFS.OID != sumOf(weights)) {
			t.Errorf("listed: %+v", x)
		}
	}
	if want := []string{
		"README.md", "config.json", "empty.txt", "model.safetensors", "sub", "sub/deep", "sub/deep/x.txt", "sub/tokens.json",
	}; !slices.Equal(paths, want) {
		t.Errorf("listed: %q", paths)
	}
	if len(got.Top) != 5 || len(got.Models) != 1 || got.Models[0].SHA != got.Info.SHA || len(got.Commits) == 0 || len(got.Paths) != 3 {
		t.Errorf("top %v, models %v, commits %v, paths %v", got.Top, got.Models, got.Commits, got.Paths)
	}
	if n := len(weights); got.Slice.Size != int64(n) || got.Slice.Head != sumOf(weights[:1000]) || got.Slice.Tail != sumOf(weights[n-1000:]) {
		t.Errorf("slices: %+v", got.Slice)
	}
	if !strings.Contains(got.Raw, sumOf(weights)) || got.Missing.File != nil || got.Missing.Exists || got.Missing.Repo || got.Missing.Revision != 404 {
		t.Errorf("raw %q, missing %+v", got.Raw, got.Missing)
	}
	if got.Safetensors.Sharded || !slices.Equal(got.Safetensors.Tensors, []string{"a", "b"}) || got.Safetensors.Count["F32"] != 1_000_000 {
		t.Errorf("safetensors: %+v", got.Safetensors)
	}
	if want := digests(files); !reflect.DeepEqual(got.Snapshot, want) {
		t.Errorf("snapshot: %v, want %v", got.Snapshot, want)
	}

	got.Snapshot = nil
	b.node(&got, "datasets/org/rows", filepath.Join(dir, "cache-rows"), "info", "snapshot")
	if want := digests(files); !reflect.DeepEqual(got.Snapshot, want) {
		t.Errorf("the dataset: %v", got.Snapshot)
	}
}

// Three clients at once at one daemon, and two at another: each file comes over the network once to each.
func TestNPMTogether(t *testing.T) {
	dir := t.TempDir()
	dray := buildDray(t)
	files := npmModel()
	files["more.bin"] = noise(8, 40_000_000)
	var all int64
	for _, data := range files {
		all += int64(len(data))
	}
	model := filepath.Join(dir, "model")
	writeFiles(t, model, files)
	a := startProcess(t, dray, filepath.Join(dir, "a"))
	a.run("share", model, "--repo", "org/model")
	b := startProcess(t, dray, filepath.Join(dir, "b"), "--peer", a.addr, "--trust", a.peer)
	c := startProcess(t, dray, filepath.Join(dir, "c"), "--peer", a.addr, "--peer", b.addr, "--trust", a.peer)
	want := digests(files)
	var wg sync.WaitGroup
	for i, d := range []*daemonProcess{b, b, b, c, c} {
		wg.Go(func() {
			var got struct{ Snapshot map[string]string }
			d.node(&got, "org/model", filepath.Join(dir, fmt.Sprint("cache", i)), "snapshot")
			if !reflect.DeepEqual(got.Snapshot, want) {
				t.Errorf("client %d: %v", i, got.Snapshot)
			}
		})
	}
	wg.Wait()
	for _, d := range []*daemonProcess{b, c} {
		if n := d.received(); n < all*9/10 || n > all*5/4 {
			t.Errorf("%s received %d bytes, of %d", filepath.Base(d.home), n, all)
		}
	}
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
