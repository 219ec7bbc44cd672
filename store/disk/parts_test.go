package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dray"
	"dray/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// mixed is a file that is put together from a header, whole leaves and parts of others.
type mixed struct {
	path   string
	data   []byte
	leaves []dray.Block
	parts  [][]dray.Part // nil for a leaf that goes there whole, at its own offset
	at     []int64
}

const mixedHeader = 100

func makeMixed(path string) *mixed {
	m := &mixed{path: path, data: bytes.Repeat([]byte("h"), mixedHeader)}
	for i := range 9 {
		b := storetest.Block(uint64(7000+i), 3000)
		m.leaves = append(m.leaves, b)
		to := int64(len(m.data))
		m.at = append(m.at, to)
		if i%3 == 0 {
			m.parts = append(m.parts, nil)
			m.data = append(m.data, b.Data()...)
			continue
		}
		list := []dray.Part{{From: 10, Size: 500, To: to}, {From: 600, Size: 500, To: to + 500}, {From: 2000, Size: 1000, To: to + 1000}}
		m.parts = append(m.parts, list)
		for _, p := range list {
			m.data = append(m.data, b.Data()[p.From:p.From+p.Size]...)
		}
	}
	return m
}

// grow begins or continues the file and says which leaves need not come.
func (m *mixed) grow(t *testing.T, s *Store) (g *Growing, filled []bool, err error) {
	t.Helper()
	g, err = s.GrowAs(t.Context(), m.path, dray.Growth{Size: int64(len(m.data)), Purpose: "mixed"})
	if err == nil {
		err = g.Fill(0, m.data[:mixedHeader])
	}
	filled = make([]bool, len(m.leaves))
	for i, b := range m.leaves {
		switch {
		case err != nil:
		case m.parts[i] == nil:
			filled[i], err = g.Expect(b.CID(), m.at[i], 3000)
		default:
			filled[i], err = g.ExpectParts(b.CID(), m.parts[i])
		}
	}
	return g, filled, err
}

// fill brings leaf i.
func (m *mixed) fill(t *testing.T, s *Store, g *Growing, i int) error {
	t.Helper()
	if m.parts[i] == nil {
		return s.Put(t.Context(), m.leaves[i])
	}
	return g.FillParts(m.leaves[i])
}

// The power goes at every operation of a fetch of parts, up to the end of Finish. What is then said to be filled is right,
// and what was synced need not come again.
func TestPartsPowerCuts(t *testing.T) {
	for cut := 1; ; cut++ {
		p := &power{dir: t.TempDir(), fs: newLossyFS(), index: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(1, 1))}
		m := makeMixed(filepath.Join(p.dir, "f"))
		s, err := p.open()
		must(t, err)
		p.fs.mu.Lock()
		p.fs.ops = 0
		p.fs.watch = func(n int, _ string) error {
			if n == cut {
				p.cutPower(uint64(cut))
			}
			if p.gone {
				return errPowerOff
			}
			return nil
		}
		p.fs.mu.Unlock()
		const synced = 5
		durable, finished := false, false
		g, _, err := m.grow(t, s)
		for i := range m.leaves {
			if i == synced && err == nil {
				err = p.note(s.Sync(t.Context()), func() { durable = true })
			}
			if err == nil {
				err = m.fill(t, s, g, i)
			}
		}
		if err == nil {
			err = p.note(g.Finish(t.Context()), func() { finished = true })
		}
		if err != nil && !p.isGone() {
			t.Fatal(err)
		}
		p.fs.mu.Lock()
		p.cutPower(uint64(cut))
		p.fs.mu.Unlock()
		s.Close()
		p.fs, p.index = p.fsAfter, p.diskAfter
		s, err = p.open()
		must(t, err)
		if got, there := p.fs.content(m.path); there {
			if !bytes.Equal(got, m.data) {
				t.Errorf("cut at %d: the path holds something else", cut)
			}
		} else {
			if finished {
				t.Errorf("cut at %d: Finish had returned, and nothing is there", cut)
			}
			g, filled, err := m.grow(t, s)
			must(t, err)
			_, _, err = g.Recover(t.Context())
			must(t, err)
			for i := range m.leaves {
				if filled[i] {
					continue
				}
				if durable && i < synced {
					t.Errorf("cut at %d: leaf %d was synced and has to come again", cut, i)
				}
				must(t, m.fill(t, s, g, i))
			}
			must(t, g.Finish(t.Context()))
			if got, _ := p.fs.content(m.path); !bytes.Equal(got, m.data) {
				t.Errorf("cut at %d: the continued file is wrong", cut)
			}
		}
		if !s.Grown(t.Context(), m.path, "mixed") {
			t.Errorf("cut at %d: the file is not known to be finished", cut)
		}
		if st := verifyStore(t, s, true); st.Problems != 0 {
			t.Errorf("cut at %d: %+v", cut, st)
		}
		must(t, s.Close())
		if t.Failed() || finished {
			if cut < 20 {
				t.Errorf("there were only %d operations", cut)
			}
			return
		}
	}
}

// After a flush that failed nobody knows which parts are there: they have to come again, and nothing is recorded of them.
func TestPartsSyncErrors(t *testing.T) {
	fs := newFaultFS()
	dir := t.TempDir()
	s := openStore(t, Config{Dir: filepath.Join(dir, "home"), FS: fs, SyncInterval: time.Hour})
	m := makeMixed(filepath.Join(dir, "f"))
	g, _, err := m.grow(t, s)
	must(t, err)
	for i := range m.leaves {
		must(t, m.fill(t, s, g, i))
	}
	fs.setFail(failing("sync", ".dray-part", syscall.EIO))
	for range 2 {
		if err := s.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("Sync: %v", err)
		}
	}
	fs.setFail(nil)
	must(t, s.Sync(t.Context()))
	if n := g.Missing(); n != 6 {
		t.Errorf("%d missing, want the 6 of which there were parts", n)
	}
	if err := g.Finish(t.Context()); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("Finish: %v", err)
	}
	for i := range m.leaves {
		must(t, m.fill(t, s, g, i))
	}
	must(t, g.Finish(t.Context()))
	if got, _ := g.s.fileAt(m.path); got == 0 || !s.Grown(t.Context(), m.path, "mixed") {
		t.Error("not finished")
	}
	left := 0
	must(t, ignoreStop(walk(t.Context(), s.db, []byte{keyParts}, func(_, _ []byte) (bool, error) {
		left++
		return true, nil
	})))
	if left > 0 {
		t.Errorf("%d records of parts are left", left)
	}
}

func ignoreStop(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
