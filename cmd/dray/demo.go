package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dray"
)

var cmdDemo = &cobra.Command{
	Use:   "demo",
	Short: "show transfers between four processes on this machine",
	Long: `Demo starts four dray processes on loopback, with homes of their own in a temporary directory. A shares a generated model of
four layers. B and C get it at the same time, in the order in which its tensors are used, from A and from each other; then D
gets one layer alone. Everything that arrives is compared with what was shared. Demo prints when the first layer was complete,
rates, and where the bytes came from, and removes everything.

With --json it prints {"cid":…,"bytes":…,"shared_sent":…,"gets":[…],"layer":{…}}. Each get is as in dray get --json, with
"process" and "first_layer_seconds" besides; the layer is as well, with "wire_bytes", which is what it took to get its "bytes".`,
	Example: "  dray demo\n  dray demo --mib 1024",
	Args:    arguments(0, 0, ""),
}

func newDemo(e *env) *cobra.Command {
	mib := int64(256)
	c := bind(e, cmdDemo, func(ctx context.Context, e *env, _ []string) error { return runDemo(ctx, e, mib) })
	c.Flags().Int64Var(&mib, "mib", mib, "size of the model in MiB")
	planeFlag(e, c)
	return c
}

const (
	demoReady = 20 * time.Second // for a process to start
	demoStop  = 12 * time.Second // for it to end before it is killed
)

// demoResult is what a demo found.
type demoResult struct {
	CID   string `json:"cid"`
	Bytes int64  `json:"bytes"`
	// SharedSent is how much the process that had the model at first sent to those that got all of it.
	SharedSent int64     `json:"shared_sent"`
	Gets       []demoGet `json:"gets"`
	Layer      demoLayer `json:"layer"`
}

// demoGet is what one process got.
type demoGet struct {
	Process string `json:"process"`
	// FirstLayer is how long it took until the embedding and the first layer were there.
	FirstLayer float64 `json:"first_layer_seconds"`
	getResult
	path string
}

// demoLayer is one layer that was got alone.
type demoLayer struct {
	Process string `json:"process"`
	getResult
	Tensors int   `json:"tensors"`
	Wire    int64 `json:"wire_bytes"`
	path    string
}

func runDemo(ctx context.Context, e *env, mib int64) (err error) {
	if mib < 1 || mib > 1<<20 {
		return usagef("--mib %d is not between 1 and 1048576", mib)
	}
	if err := e.checkPlane(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dray-demo-")
	if err != nil {
		return err
	}
	d := &demo{env: e, dir: dir}
	defer func() { err = errors.Join(err, d.close()) }()
	return d.run(ctx, mib<<20)
}

// demo is some processes and what they have.
type demo struct {
	env     *env
	dir     string
	parties []*party
}

// party is one of the processes.
type party struct {
	name   string
	cmd    *exec.Cmd
	stderr tailBuffer
	lines  sync.WaitGroup
	id     identity
	remote *remote
}

func (d *demo) run(ctx context.Context, bytes int64) error {
	e := d.env
	m := newDemoModel(bytes)
	e.tell("A, B, C and D are dray processes on this machine. A shares a model: %s, %d layers, %d tensors.",
		size(m.size()), demoLayers, len(m.entries))
	file := filepath.Join(d.dir, "model.safetensors")
	if err := m.write(ctx, file); err != nil {
		return err
	}
	for _, name := range []string{"A", "B", "C", "D"} {
		if err := d.start(ctx, name); err != nil {
			return err
		}
	}
	a := d.parties[0]
	added, err := taskAdd.do(ctx, a.remote, addRequest{Path: file}, pipes[addNote]{})
	if err != nil {
		return err
	}
	e.tell("B and C get it at once, from A and from each other. Then D gets one layer.")
	result := demoResult{CID: added.CID, Bytes: m.size()}
	if result.Gets, err = d.getters(ctx, added.CID, d.parties[1:3]); err != nil {
		return err
	}
	peers, err := taskPeers.do(ctx, a.remote, nothing{}, pipes[nothing]{})
	if err != nil {
		return err
	}
	for _, p := range peers {
		result.SharedSent += p.Sent
	}
	if result.Layer, err = d.layer(ctx, added.CID, d.parties[3]); err != nil {
		return err
	}
	for i, g := range result.Gets {
		if err := d.check(ctx, d.parties[i+1], file, g.path, added.CID); err != nil {
			return err
		}
	}
	if err := sameTensors(file, result.Layer.path); err != nil {
		return err
	}
	if e.json {
		return e.emit(result)
	}
	return d.print(result)
}

// start starts a process that serves a home of its own, and waits until it is ready.
func (d *demo) start(ctx context.Context, name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	home := filepath.Join(d.dir, name)
	p := &party{name: name, remote: nil}
	args := []string{"--home", home, "serve", "--json", "--http", "off", "--listen", "/ip4/127.0.0.1/tcp/0"}
	if d.env.dataPlane != "" {
		args = append(args, "--data-plane", d.env.dataPlane)
	}
	p.cmd = exec.Command(self, args...)
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	d.parties = append(d.parties, p)
	first := make(chan []byte, 1)
	p.lines.Go(func() {
		r := bufio.NewReader(out)
		line, _ := r.ReadBytes('\n') // an empty line says that it ended
		first <- line
		_, _ = io.Copy(io.Discard, r)
	})
	t := time.NewTimer(demoReady)
	defer t.Stop()
	select {
	case line := <-first:
		if err := json.Unmarshal(line, &p.id); err != nil {
			return fmt.Errorf("process %s did not start: %s", name, p.stderr.String())
		}
	case <-t.C:
		return fmt.Errorf("process %s was not ready in %v", name, demoReady)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if p.remote, err = dialRemote(ctx, home); err == nil && p.remote == nil {
		err = fmt.Errorf("process %s has no control socket", name)
	}
	return err
}

// getters has processes get the root at the same time.
func (d *demo) getters(ctx context.Context, root string, getters []*party) ([]demoGet, error) {
	show := newDisplay(d.env)
	gets, errs := make([]demoGet, len(getters)), make([]error, len(getters))
	var wg sync.WaitGroup
	for i, p := range getters {
		q := getRequest{Output: filepath.Join(d.dir, p.name+".safetensors"), Layers: true}
		q.Root, q.Peers = root, d.addrs(p, len(getters)+1)
		b := show.bar(p.name)
		wg.Go(func() {
			defer b.close()
			g := &gets[i]
			g.Process = p.name
			o, err := taskGet.do(ctx, p.remote, q, pipes[getNote]{note: func(n getNote) {
				if n.Tensor != nil && inFirstLayer(n.Tensor.Name) {
					g.FirstLayer = max(g.FirstLayer, n.Tensor.Seconds)
				}
				if n.Event == "progress" {
					d.rename(n.Sources)
					b.set(n.meter())
				}
			}})
			g.getResult, g.path, errs[i] = o.getResult, o.Path, err
			d.rename(g.Sources)
		})
	}
	wg.Wait()
	show.close()
	return gets, errors.Join(errs...)
}

// layer has a process get one layer.
func (d *demo) layer(ctx context.Context, root string, p *party) (demoLayer, error) {
	q := getRequest{Output: filepath.Join(d.dir, p.name+".safetensors"), InOrder: true}
	q.Root, q.Peers = root, d.addrs(p, len(d.parties))
	q.Part = &partRequest{Tensors: []string{demoPattern}}
	l := demoLayer{Process: p.name}
	o, err := taskGet.do(ctx, p.remote, q, pipes[getNote]{note: func(n getNote) {
		if n.Tensor != nil {
			l.Tensors = n.Tensor.Ready
		}
	}})
	l.getResult, l.path = o.getResult, o.Path
	for _, s := range l.Sources {
		l.Wire += s.Bytes
	}
	d.rename(l.Sources)
	return l, err
}

// addrs returns the addresses of the first n processes but one.
func (d *demo) addrs(but *party, n int) (addrs []string) {
	for _, p := range d.parties[:n] {
		if p != but {
			addrs = append(addrs, p.id.Addrs...)
		}
	}
	return addrs
}

// rename puts the names of the processes in place of their ids.
func (d *demo) rename(sources []source) {
	for i := range sources {
		sources[i].Peer = d.nameOf(sources[i].Peer)
	}
}

// nameOf returns the name of the process with a peer id.
func (d *demo) nameOf(peer string) string {
	for _, p := range d.parties {
		if p.id.Peer == peer {
			return p.name
		}
	}
	return peer
}

func (d *demo) print(r demoResult) error {
	e := d.env
	e.printf("")
	w := tabwriter.NewWriter(e.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "\tfirst layer\tall\trate\tfrom A\tfrom the other\ttwice")
	for _, g := range r.Gets {
		var fromA, fromOther int64
		for _, s := range g.Sources {
			if s.Peer == "A" {
				fromA += s.Bytes
			} else {
				fromOther += s.Bytes
			}
		}
		fmt.Fprintf(w, "%s\t%.2f s\t%.2f s\t%s/s\t%s\t%s\t%s\n", g.Process, g.FirstLayer, g.Seconds,
			size(int64(float64(g.Bytes)/g.Seconds)), size(fromA), size(fromOther), size(g.DuplicateBytes))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	l := r.Layer
	e.printf("\n%s got '%s' alone in %.2f s: %s, for which %s came over the wire.", l.Process, demoPattern, l.Seconds,
		size(l.Bytes), size(l.Wire))
	e.printf("A sent %.2f times the model for two copies of it. All of it went over %s.",
		float64(r.SharedSent)/float64(r.Bytes), r.over())
	e.printf("What arrived is what A shared, byte by byte, and hashes to\n%s", r.CID)
	return nil
}

// over says what the bytes took.
func (r *demoResult) over() string {
	var protocols, planes []string
	list := r.Layer.Sources
	for _, g := range r.Gets {
		list = append(slices.Clip(list), g.Sources...)
	}
	for _, s := range list {
		protocols, planes = append(protocols, s.Protocol), append(planes, s.DataPlane)
	}
	join := func(list []string) string {
		slices.Sort(list)
		return strings.Join(slices.DeleteFunc(slices.Compact(list), func(s string) bool { return s == "" }), ", ")
	}
	return fmt.Sprintf("%s (%s)", join(protocols), join(planes))
}

// close ends the processes and removes everything.
func (d *demo) close() error {
	for _, p := range d.parties {
		if p.remote != nil {
			p.remote.Close()
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	var errs []error
	for _, p := range d.parties {
		kill := time.AfterFunc(demoStop, func() { _ = p.cmd.Process.Kill() })
		p.lines.Wait()
		if err := p.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("process %s: %w: %s", p.name, err, p.stderr.String()))
		}
		kill.Stop()
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// check compares a copy with the original, byte by byte, and hashes it once more from the disk.
func (d *demo) check(ctx context.Context, p *party, original, got, root string) error {
	same, err := sameBytes(original, got)
	if err != nil {
		return err
	}
	again, err := taskAdd.do(ctx, p.remote, addRequest{Path: got, OnlyHash: true}, pipes[addNote]{})
	if err != nil {
		return err
	}
	if !same || again.CID != root {
		return fmt.Errorf("%w: %s differs from what was shared (%s, not %s)", dray.ErrCorrupt, got, again.CID, root)
	}
	return nil
}

// tailBuffer keeps the end of what a process complains about.
type tailBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	const most = 4 << 10
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	if n := len(b.text) - most; n > 0 {
		b.text = append(b.text[:0], b.text[n:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
