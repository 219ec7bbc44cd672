package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
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
	Short: "show a transfer between three processes on this machine",
	Long: `Demo starts three dray processes on loopback, with homes of their own in a temporary directory. One shares a generated
file; the other two get it, from the first and from each other. Then it compares what arrived with what was shared, prints
rates and where the bytes came from, and removes everything.

With --json it prints {"cid":…,"bytes":…,"shared_sent":…,"gets":[…]}, where each get is as in dray get --json.`,
	Example: "  dray demo\n  dray demo --mib 1024",
	Args:    arguments(0, 0, ""),
}

func newDemo(e *env) *cobra.Command {
	mib := int64(256)
	c := bind(e, cmdDemo, func(ctx context.Context, e *env, _ []string) error { return runDemo(ctx, e, mib) })
	c.Flags().Int64Var(&mib, "mib", mib, "size of the file in MiB")
	planeFlag(e, c)
	return c
}

const (
	demoSeed  = "dray demo"
	demoReady = 20 * time.Second // for a process to start
	demoStop  = 12 * time.Second // for it to end before it is killed
)

// demoResult is what a demo found.
type demoResult struct {
	CID   string `json:"cid"`
	Bytes int64  `json:"bytes"`
	// SharedSent is how much the process that had the file at first sent in all.
	SharedSent int64       `json:"shared_sent"`
	Gets       []getResult `json:"gets"`
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

// demo is three processes and what they have.
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
	e.tell("making a file of %s", size(bytes))
	file := filepath.Join(d.dir, "demo.bin")
	if err := makeFile(ctx, file, bytes); err != nil {
		return err
	}
	e.tell("starting three dray processes: A shares the file; B and C get it from A and from each other")
	for _, name := range []string{"A", "B", "C"} {
		if err := d.start(ctx, name); err != nil {
			return err
		}
	}
	a := d.parties[0]
	added, err := taskAdd.do(ctx, a.remote, addRequest{Path: file}, pipes[addNote]{})
	if err != nil {
		return err
	}
	outcomes, err := d.getters(ctx, added.CID)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if err := d.check(ctx, d.parties[i+1], file, o.Path, added.CID); err != nil {
			return err
		}
	}
	result := demoResult{CID: added.CID, Bytes: bytes}
	for _, o := range outcomes {
		result.Gets = append(result.Gets, o.getResult)
	}
	peers, err := taskPeers.do(ctx, a.remote, nothing{}, pipes[nothing]{})
	if err != nil {
		return err
	}
	for _, p := range peers {
		result.SharedSent += p.Sent
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
	args := []string{"--home", home, "serve", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"}
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

// getters has B and C get the root at the same time.
func (d *demo) getters(ctx context.Context, root string) ([]getOutcome, error) {
	a, getters := d.parties[0], d.parties[1:]
	show := newDisplay(d.env)
	outcomes, errs := make([]getOutcome, len(getters)), make([]error, len(getters))
	var wg sync.WaitGroup
	for i, p := range getters {
		other := getters[1-i]
		q := getRequest{Output: filepath.Join(d.dir, p.name+".bin")}
		q.Root = root
		q.Peers = append(append(q.Peers, a.id.Addrs...), other.id.Addrs...)
		b := show.bar(p.name)
		wg.Go(func() {
			defer b.close()
			outcomes[i], errs[i] = taskGet.do(ctx, p.remote, q, pipes[getNote]{note: func(n getNote) {
				for k := range n.Sources {
					n.Sources[k].Peer = d.nameOf(n.Sources[k].Peer)
				}
				b.set(n.meter())
			}})
		})
	}
	wg.Wait()
	show.close()
	return outcomes, errors.Join(errs...)
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
	e.printf("\nboth copies are identical to the original and hash to\n%s\n", r.CID)
	w := tabwriter.NewWriter(e.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "process\tgot\tin\trate\tfrom A\tfrom the other\ttwice\tover")
	for i, g := range r.Gets {
		var fromA, fromOther int64
		var over []string
		for _, s := range g.Sources {
			over = append(over, s.DataPlane)
			if d.nameOf(s.Peer) == "A" {
				fromA += s.Bytes
			} else {
				fromOther += s.Bytes
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f s\t%s/s\t%s\t%s\t%s\t%s\n", d.parties[i+1].name, size(g.Bytes), g.Seconds,
			size(int64(float64(g.Bytes)/g.Seconds)), size(fromA), size(fromOther), size(g.DuplicateBytes),
			strings.Join(over, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	e.printf("\nA sent %s in all: %.2f times the file, for two copies of it",
		size(r.SharedSent), float64(r.SharedSent)/float64(r.Bytes))
	return nil
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

// makeFile writes bytes that look random and are the same each time.
func makeFile(ctx context.Context, path string, bytes int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	source := rand.NewChaCha8(sha256.Sum256([]byte(demoSeed)))
	_, err = io.CopyBuffer(onlyWriter{file}, &interruptible{ctx, io.LimitReader(source, bytes)}, make([]byte, 1<<20))
	return errors.Join(err, file.Close())
}

// onlyWriter hides what else a file can do, so that it is written with the buffer that was given.
type onlyWriter struct{ io.Writer }

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

// interruptible reads until a context ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
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
