package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"
)

const crashDir = "DRAY_DISK_CRASH_DIR"

// TestMain makes the test binary the process that is killed, when it is told to be.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		seed, err := strconv.ParseUint(os.Getenv(crashDir+"_SEED"), 10, 64)
		if err == nil {
			err = crashChild(dir, seed)
		}
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// crashBlocks are the loose blocks and crashFile the file that the child works with.
func crashBlocks() (blocks []dray.Block) {
	for i := range 40 {
		blocks = append(blocks, storetest.Block(uint64(5000+i), []int{60, 10_000, 40_000, 300_000}[i%4]))
	}
	return blocks
}

func crashFile(dir string) *testFile {
	return makeLeaves(filepath.Join(dir, "fetched"), 6, 60, 50_000)
}

func addedFile(dir string) *testFile {
	return makeLeaves(filepath.Join(dir, "added"), 7, 30, 50_000)
}

// crashChild works on the store in dir at random, for ever, saying on its output what it has done: "w N" when Put of block
// N has returned, "d N" when a Sync after it has, "f" when the file is finished, "a" when a file is added and synced.
func crashChild(dir string, seed uint64) error {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 3))
	s, err := Open(Config{
		Dir: filepath.Join(dir, "home"), SegmentSize: 700_000, SyncBytes: 400_000, SyncInterval: 5 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	blocks, f, added := crashBlocks(), crashFile(dir), addedFile(dir)
	nLoose := len(blocks)
	blocks = append(blocks, f.leaves...)
	var g *Growing
	written := make(map[int]bool)
	for {
		if g == nil {
			if g, err = s.Grow(ctx, f.path, int64(len(f.data))); err != nil {
				return err
			}
			for i, b := range f.leaves {
				if _, err := g.Expect(b.CID(), f.offset(i), int64(b.Size())); err != nil {
					return err
				}
			}
			if _, _, err := g.Recover(ctx); err != nil {
				return err
			}
		}
		switch k := rng.IntN(40); {
		case k == 0:
			if err := s.Sync(ctx); err != nil {
				return err
			}
			for i := range written {
				fmt.Println("d", i)
			}
			clear(written)
		case k == 1:
			r, err := s.Reference(ctx, added.path)
			if err != nil {
				return err
			}
			for i, b := range added.leaves {
				if err := r.Index(b.CID(), nil, nil, added.offset(i), int64(b.Size())); err != nil {
					return err
				}
			}
			if err := errors.Join(r.Commit(ctx), s.Sync(ctx)); err != nil {
				return err
			}
			fmt.Println("a")
		case k == 2 && g.Missing() == 0:
			if err := g.Finish(ctx); err != nil {
				return err
			}
			fmt.Println("f")
			g = nil // and once more from the start
		case k < 25 && g.Missing() > 0:
			i := nLoose + rng.IntN(len(f.leaves))
			if err := s.Put(ctx, blocks[i]); err != nil {
				return err
			}
			written[i] = true
			fmt.Println("w", i)
		default:
			i := rng.IntN(nLoose)
			if err := s.Put(ctx, blocks[i]); err != nil {
				return err
			}
			written[i] = true
			fmt.Println("w", i)
		}
	}
}

// A process that adds and fetches is killed at random points. Everything whose Put had returned is there afterwards, or is
// found in the part file without being fetched; and nothing is wrong.
func TestKill(t *testing.T) {
	exe, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	blocks, f, added := crashBlocks(), crashFile(dir), addedFile(dir)
	nLoose := len(blocks)
	blocks = append(blocks, f.leaves...)
	added.write(t, time.Now().Add(-time.Minute))
	rng := rand.New(rand.NewPCG(9, 9))
	sure := make(map[int]bool)
	isAdded := false
	finishes := 0
	for round := range 10 {
		c := exec.Command(exe)
		c.Env = append(os.Environ(), crashDir+"="+dir, fmt.Sprintf("%s_SEED=%d", crashDir, round))
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		lines := 20 + rng.IntN(250)
		sc := bufio.NewScanner(out)
		for killed := false; sc.Scan(); {
			kind, rest, _ := strings.Cut(sc.Text(), " ")
			n, _ := strconv.Atoi(rest)
			switch kind {
			case "w", "d":
				sure[n] = true
			case "a":
				isAdded = true
			case "f":
				finishes++
			case "error":
				t.Fatalf("the child failed: %s", rest)
			}
			if lines--; lines <= 0 && !killed {
				must(t, c.Process.Kill())
				killed = true // and read on what it had said
			}
		}
		_ = c.Wait() // killed

		s := openStore(t, Config{Dir: filepath.Join(dir, "home")})
		if st := verifyStore(t, s, true); st.Problems != 0 {
			t.Errorf("round %d: %+v", round, st)
		}
		g, _ := f.grow(t, s)
		_, _, err = g.Recover(t.Context())
		must(t, err)
		for i := range sure {
			if i < nLoose {
				wantLeaf(t, s, blocks[i])
			} else if !g.Has(blocks[i].CID()) && !onDisk(s, blocks[i]) {
				t.Errorf("round %d: leaf %d would be fetched again", round, i-nLoose)
			}
		}
		if isAdded {
			for _, b := range added.leaves {
				wantLeaf(t, s, b)
			}
		}
		must(t, s.Close())
	}
	if finishes == 0 {
		t.Error("the file was never finished; the test does not reach Finish")
	}
}

// onDisk reports whether s serves b, from wherever.
func onDisk(s *Store, b dray.Block) bool {
	_, err := s.GetRaw(context.Background(), b.CID(), nil)
	return err == nil
}

// A store that is in use is refused, naming who has it.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Config{Dir: dir})
	_, err := Open(Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("Open of a store in use: %v", err)
	}
	must(t, s.Close())
	s, err = Open(Config{Dir: dir})
	must(t, err)
	must(t, s.Close())
	must(t, os.WriteFile(filepath.Join(dir, "VERSION"), []byte("dray store 99\n"), 0o600))
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "dray store 99") {
		t.Errorf("Open of another version: %v", err)
	}
}
