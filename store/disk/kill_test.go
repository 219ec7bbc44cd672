package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"
)

// The process that is killed is this test binary again, told so by killEnv. It works on a store without end and says
// line by line what it did; only what it said counts.
//
//	w ID SIZE  put a block
//	d ID       is about to delete a block
//	r N        referenced file N
//	g N LEAF   put a leaf of growing file N, or found it in what was there
//	F N        finished file N
//	s          synced
const killEnv = "DRAY_TEST_KILLED"

const killLeaves, killLeafSize = 16, 9_000

// init makes the test binary the worker before any test begins.
func init() {
	spec := os.Getenv(killEnv)
	if spec == "" {
		return
	}
	if err := workUntilKilled(spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

func killConfig(dir string) Config {
	return Config{
		Dir: filepath.Join(dir, "home"), SegmentSize: 150 << 10, SyncBytes: 200 << 10, SyncInterval: 20 * time.Millisecond,
	}
}

func killFile(dir, kind string, n int) *testFile {
	seed := uint64(1000 + n)
	if kind == "grown" {
		seed += 1 << 20
	}
	return makeLeaves(filepath.Join(dir, fmt.Sprintf("%s-%d", kind, n)), seed, killLeaves, killLeafSize)
}

// worker is what the killed process does.
type worker struct {
	dir   string
	s     *Store
	rng   *rand.Rand
	round int
	put   []uint64
	refs  int
	grown int
	g     *Growing
	file  *testFile
}

func workUntilKilled(spec string) error {
	part := strings.SplitN(spec, ",", 3)
	round, err := strconv.Atoi(part[0])
	if err != nil {
		return err
	}
	grown, err := strconv.Atoi(part[1])
	if err != nil {
		return err
	}
	w := &worker{dir: part[2], round: round, grown: grown, rng: rand.New(rand.NewPCG(uint64(round), 7))}
	if w.s, err = Open(killConfig(w.dir)); err != nil {
		return err
	}
	for range 20_000 {
		if err := w.step(context.Background()); err != nil {
			return err
		}
	}
	return errors.New("nobody killed it")
}

func (w *worker) step(ctx context.Context) error {
	switch n := w.rng.IntN(100); {
	case n < 35:
		return w.putOne(ctx, uint64(w.round)<<32|uint64(len(w.put)))
	case n < 40 && len(w.put) > 0: // again, perhaps after a deletion
		id := w.put[w.rng.IntN(len(w.put))]
		fmt.Println("p", id)
		return w.putOne(ctx, id)
	case n < 52 && len(w.put) > 0:
		id := w.put[w.rng.IntN(len(w.put))]
		fmt.Println("d", id)
		return w.s.Delete(ctx, storetest.Block(id, killSize(id)).CID())
	case n < 55:
		return w.reference(ctx)
	case n < 60:
		if err := w.s.Sync(ctx); err != nil {
			return err
		}
		fmt.Println("s")
		return nil
	}
	return w.grow(ctx)
}

func killSize(id uint64) int {
	return []int{40, 100, 9000, 17_000, 20_000, 50_000}[id%6]
}

func (w *worker) putOne(ctx context.Context, id uint64) error {
	if err := w.s.Put(ctx, storetest.Block(id, killSize(id))); err != nil {
		return err
	}
	w.put = append(w.put, id)
	fmt.Println("w", id, killSize(id))
	return nil
}

func (w *worker) reference(ctx context.Context) error {
	n := w.round*100 + w.refs
	f := killFile(w.dir, "user", n)
	if err := os.WriteFile(f.path, f.data, 0o600); err != nil {
		return err
	}
	r, err := w.s.Reference(ctx, f.path)
	if err != nil {
		return err
	}
	for i, b := range f.leaves {
		if err := r.Index(b.CID(), nil, nil, f.offset(i), int64(b.Size())); err != nil {
			return err
		}
	}
	if err := r.Commit(ctx); err != nil {
		return err
	}
	w.refs++
	fmt.Println("r", n)
	return nil
}

// grow puts the next missing leaf of a file, or finishes it.
func (w *worker) grow(ctx context.Context) error {
	if w.g == nil {
		return w.growNext(ctx)
	}
	if w.g.Missing() == 0 {
		if err := w.g.Finish(ctx); err != nil {
			return err
		}
		fmt.Println("F", w.grown)
		w.g = nil
		w.grown++
		return nil
	}
	first := w.rng.IntN(killLeaves)
	for i := range killLeaves {
		i = (i + first) % killLeaves
		if !w.g.Has(w.file.leaves[i].CID()) {
			if err := w.s.Put(ctx, w.file.leaves[i]); err != nil {
				return err
			}
			fmt.Println("g", w.grown, i)
			return nil
		}
	}
	return errors.New("leaves are missing, yet it has all of them")
}

func (w *worker) growNext(ctx context.Context) (err error) {
	w.file = killFile(w.dir, "grown", w.grown)
	if w.g, err = w.s.Grow(ctx, w.file.path, int64(len(w.file.data))); err != nil {
		return err
	}
	for i, b := range w.file.leaves {
		if _, err := w.g.Expect(b.CID(), w.file.offset(i), killLeafSize); err != nil {
			return err
		}
	}
	if _, _, err := w.g.Recover(ctx); err != nil {
		return err
	}
	for i, b := range w.file.leaves {
		if w.g.Has(b.CID()) {
			fmt.Println("g", w.grown, i)
		}
	}
	return nil
}

// certainty is what the parent knows of something that the child did.
type certainty int

const (
	unknown certainty = iota
	written
	durable
	deleting // perhaps there; so is what was deleted and is being put again
	deleted
)

// killed is what the parent knows.
type killed struct {
	dir      string
	blocks   map[uint64]certainty
	refs     map[int]certainty
	leaves   map[int]*[killLeaves]certainty
	finished map[int]bool
	grown    int // the file that is growing
	lines    int
}

func (k *killed) hear(t *testing.T, line string) {
	var n, m int
	var id uint64
	k.lines++
	scan := func(format string, to ...any) bool {
		got, err := fmt.Sscanf(line, format, to...)
		return err == nil && got == len(to)
	}
	switch {
	case line == "s":
		k.synced()
	case scan("w %d %d", &id, &n):
		k.blocks[id] = written
	case scan("d %d", &id):
		k.blocks[id] = deleting
	case scan("p %d", &id):
		if k.blocks[id] == deleted {
			k.blocks[id] = deleting // until it is said to be written: the kill may come in between
		}
	case scan("r %d", &n):
		k.refs[n] = written
	case scan("g %d %d", &n, &m):
		if k.leaves[n] == nil {
			k.leaves[n] = new([killLeaves]certainty)
		}
		k.leaves[n][m] = max(k.leaves[n][m], written)
	case scan("F %d", &n):
		k.finished[n] = true
		k.grown = n + 1
	default:
		t.Errorf("line %q", line)
	}
}

func (k *killed) synced() {
	for id, c := range k.blocks {
		switch c {
		case written:
			k.blocks[id] = durable
		case deleting:
			k.blocks[id] = deleted
		}
	}
	for n := range k.refs {
		k.refs[n] = durable
	}
	for _, leaves := range k.leaves {
		for i, c := range leaves {
			if c == written {
				leaves[i] = durable
			}
		}
	}
}

// TestKillDuringAnything kills a working process thirty times and looks at what it left each time.
func TestKillDuringAnything(t *testing.T) {
	self, err := os.Executable()
	must(t, err)
	k := &killed{
		dir: t.TempDir(), blocks: make(map[uint64]certainty), refs: make(map[int]certainty),
		leaves: make(map[int]*[killLeaves]certainty), finished: make(map[int]bool),
	}
	rng := rand.New(rand.NewPCG(42, 0))
	rounds := 30
	for round := range rounds {
		cmd := exec.Command(self, "-test.run=^$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d,%d,%s", killEnv, round, k.grown, k.dir))
		k.kill(t, cmd, rng.IntN(250), time.Duration(rng.IntN(3000))*time.Microsecond)
		k.check(t, rng)
		if t.Failed() {
			t.Fatalf("after kill %d", round+1)
		}
	}
	t.Logf("%d kills, %d reports, %d files finished", rounds, k.lines, len(k.finished))
}

// kill runs cmd until it has said some lines and a while has passed.
func (k *killed) kill(t *testing.T, cmd *exec.Cmd, lines int, while time.Duration) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	heard := make(chan string, 1024)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(heard)
		in := bufio.NewReader(out)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return // a line that is cut off was not said
			}
			heard <- strings.TrimSuffix(line, "\n")
		}
	})
	var timer <-chan time.Time
	for n := 0; ; n++ {
		if n == lines {
			timer = time.After(while)
		}
		select {
		case line, ok := <-heard:
			if ok {
				k.hear(t, line)
				continue
			}
		case <-timer:
			must(t, cmd.Process.Kill())
			timer = nil
			continue
		}
		break
	}
	wg.Wait()
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("it ended by itself: %v: %s", err, stderr.String())
	}
}

// check opens what was left.
func (k *killed) check(t *testing.T, rng *rand.Rand) {
	t.Helper()
	s, err := Open(killConfig(k.dir))
	must(t, err)
	defer func() { must(t, s.Close()) }()
	if st := verifyStore(t, s, true); st.Problems != 0 {
		t.Errorf("deep verification: %+v", st)
	}
	for id, c := range k.blocks {
		b := storetest.Block(id, killSize(id))
		got, err := s.GetRaw(t.Context(), b.CID(), nil)
		switch there := err == nil && bytes.Equal(got, b.Data()); {
		case err == nil && !there:
			t.Errorf("block %d: wrong bytes", id)
		case err != nil && !errors.Is(err, dray.ErrNotFound):
			t.Errorf("block %d: %v", id, err)
		case !there && (c == written || c == durable):
			t.Errorf("block %d (%d) of %d bytes is lost", id, c, b.Size())
		case there && c == deleted:
			t.Errorf("block %d of %d bytes is back", id, b.Size())
		case there && c == deleting: // the deletion was lost, and it is not asked for again
			k.blocks[id] = durable
		case c == deleting:
			k.blocks[id] = deleted
		}
	}
	for n, c := range k.refs {
		if there := k.checkLeaves(t, s, killFile(k.dir, "user", n), c == durable); !there {
			delete(k.refs, n) // it was not synced, and nobody references it again
		}
	}
	for n := range k.finished {
		f := killFile(k.dir, "grown", n)
		k.checkLeaves(t, s, f, true)
		if got, err := os.ReadFile(f.path); err != nil || !bytes.Equal(got, f.data) {
			t.Errorf("finished file %d: %d bytes, %v", n, len(got), err)
		}
	}
	k.resume(t, s, rng)
}

func (k *killed) checkLeaves(t *testing.T, s *Store, f *testFile, all bool) (there bool) {
	t.Helper()
	there = true
	for i, b := range f.leaves {
		got, err := s.GetRaw(t.Context(), b.CID(), nil)
		switch {
		case err == nil && !bytes.Equal(got, b.Data()):
			t.Errorf("%s: leaf %d: wrong bytes", f.path, i)
		case all && err != nil:
			t.Errorf("%s: leaf %d: %v", f.path, i, err)
		}
		there = there && err == nil
	}
	return there
}

// resume continues the growing file as a repeated command does, and sometimes completes it.
func (k *killed) resume(t *testing.T, s *Store, rng *rand.Rand) {
	t.Helper()
	f := killFile(k.dir, "grown", k.grown)
	if got, err := os.ReadFile(f.path); err == nil { // Finish was done, and not said any more
		if !bytes.Equal(got, f.data) {
			t.Errorf("%s was moved with wrong bytes", f.path)
		}
		k.checkLeaves(t, s, f, true)
		k.finished[k.grown] = true
		k.grown++
		return
	}
	known := k.leaves[k.grown]
	if known == nil {
		known = new([killLeaves]certainty)
	}
	g, err := s.Grow(t.Context(), f.path, int64(len(f.data)))
	must(t, err)
	for i, b := range f.leaves {
		filled, err := g.Expect(b.CID(), f.offset(i), killLeafSize)
		must(t, err)
		if !filled && known[i] == durable {
			t.Errorf("leaf %d of file %d was durable and is not filled", i, k.grown)
		}
	}
	_, _, err = g.Recover(t.Context())
	must(t, err)
	for i, b := range f.leaves {
		if !g.Has(b.CID()) && known[i] >= written {
			t.Errorf("leaf %d of file %d was written and would be fetched again", i, k.grown)
		}
	}
	if rng.IntN(3) > 0 {
		must(t, g.Close())
		return
	}
	f.finish(t, s, g)
	k.finished[k.grown] = true
	k.grown++
}
