package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"dray/jobs"
)

func job(id int, s jobs.State) jobs.Job {
	return jobs.Job{ID: jobs.ID(id), Key: fmt.Sprint("k", id), State: s, Name: "name\nwith a line break"}
}

func open(t *testing.T, path string) (*Journal, []jobs.Job, int) {
	t.Helper()
	j, list, damaged, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, list, damaged
}

func appendAll(t *testing.T, j *Journal, list ...jobs.Job) {
	t.Helper()
	if err := j.Append(list); err != nil {
		t.Fatal(err)
	}
}

func TestAppendAndOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs")
	j, list, _ := open(t, path)
	if len(list) != 0 {
		t.Fatalf("a new journal has %v", list)
	}
	appendAll(t, j, job(1, jobs.Queued), job(2, jobs.Queued))
	appendAll(t, j, job(1, jobs.Done), job(3, jobs.Paused))
	appendAll(t, j, jobs.Job{ID: 3, State: jobs.Gone})
	_, list, damaged := open(t, path)
	want := []jobs.Job{job(1, jobs.Done), job(2, jobs.Queued), {ID: 3, State: jobs.Gone}}
	if damaged != 0 || !reflect.DeepEqual(list, want) {
		t.Errorf("%d damaged, %+v, want %+v", damaged, list, want)
	}
}

// A journal that is cut off anywhere has every record before the cut, and takes more after it.
func TestEveryTornTail(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "jobs")
	j, _, _ := open(t, path)
	appendAll(t, j, job(1, jobs.Queued))
	whole, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, j, job(2, jobs.Queued))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(b) {
		torn := filepath.Join(dir, fmt.Sprint("torn", n))
		if err := os.WriteFile(torn, b[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		j, list, _ := open(t, torn)
		want := 0
		if int64(n) >= whole.Size()-1 { // a line without its end is a line
			want = 1
		}
		if n == len(b)-1 {
			want = 2
		}
		if len(list) != want {
			t.Fatalf("cut at %d of %d: %d records, want %d", n, len(b), len(list), want)
		}
		appendAll(t, j, job(3, jobs.Queued))
		if _, list, _ = open(t, torn); len(list) != want+1 {
			t.Fatalf("cut at %d, then one more: %d records, want %d", n, len(list), want+1)
		}
	}
}

// A damaged line in the middle costs its own record only.
func TestDamagedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs")
	j, _, _ := open(t, path)
	appendAll(t, j, job(1, jobs.Queued))
	first, _ := os.Stat(path)
	appendAll(t, j, job(2, jobs.Queued), job(3, jobs.Queued))
	b, _ := os.ReadFile(path)
	b[first.Size()+30] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, list, damaged := open(t, path)
	if damaged != 1 || len(list) != 2 || list[0].ID != 1 || list[1].ID != 3 {
		t.Errorf("%d damaged, %+v", damaged, list)
	}
	k, _, _ := open(t, path)
	appendAll(t, k, job(4, jobs.Queued))
	if _, list, damaged = open(t, path); damaged != 0 || len(list) != 3 {
		t.Errorf("the damaged line is still there")
	}
}

// The file does not grow without end, and the numbers of jobs that are gone are not given again.
func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs")
	j, _, _ := open(t, path)
	j.sync = func(*os.File) error { return nil } // thousands of flushes prove nothing here
	for i := range 5000 {
		appendAll(t, j, job(i+1, jobs.Queued))
		appendAll(t, j, jobs.Job{ID: jobs.ID(i + 1), State: jobs.Gone})
		if j.lines > slack+8 {
			t.Fatalf("%d lines for %d jobs", j.lines, len(j.last))
		}
	}
	_, list, _ := open(t, path)
	q := jobs.New(jobs.Config{})
	q.Restore(0, list)
	if id, _, err := q.Add(0, jobs.Job{Key: "new"}); id != 5001 || err != nil {
		t.Errorf("the next job is %d, want 5001 (%v)", id, err)
	}
}

// After a write or a flush that failed, the next append makes good what was lost.
func TestFailingDisk(t *testing.T) {
	full := errors.New("full")
	for name, fail := range map[string]func(j *Journal, on *bool){
		"write": func(j *Journal, on *bool) {
			j.write = func(f *os.File, b []byte) error {
				if *on {
					f.Write(b[:len(b)/2])
					return full
				}
				_, err := f.Write(b)
				return err
			}
		},
		"sync": func(j *Journal, on *bool) {
			j.sync = func(f *os.File) error {
				if *on {
					return full
				}
				return f.Sync()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "jobs")
			j, _, _ := open(t, path)
			on := false
			fail(j, &on)
			appendAll(t, j, job(1, jobs.Queued))
			on = true
			for i := 2; i < 5; i++ {
				if err := j.Append([]jobs.Job{job(i, jobs.Queued)}); !errors.Is(err, full) {
					t.Fatalf("record %d: %v", i, err)
				}
			}
			if _, list, _ := open(t, path); len(list) == 0 || list[0].ID != 1 {
				t.Fatalf("with a failing disk %+v is left", list)
			}
			on = false
			appendAll(t, j, job(5, jobs.Queued))
			if _, list, damaged := open(t, path); len(list) != 5 || damaged != 0 {
				t.Errorf("once the disk is well again: %d records, %d damaged, want 5 and 0", len(list), damaged)
			}
		})
	}
}
