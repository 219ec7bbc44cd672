package arch

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestTheProject is the test that this package is for.
func TestTheProject(t *testing.T) {
	root := os.DirFS("../..")
	if _, err := fs.Stat(root, "go.mod"); err != nil {
		t.Fatal(err)
	}
	refusals, err := Check(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refusals {
		t.Error(r)
	}
}

// TestTheRules checks the rules on trees that break them. Each file in testdata is an archive of Go files; the comment at
// its top lists what must be refused, one a line, as "FILE:LINE: part of the reason", and nothing else may be.
func TestTheRules(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			tree := make(fstest.MapFS)
			for _, f := range a.Files {
				tree[f.Name] = &fstest.MapFile{Data: f.Data}
			}
			refusals, err := Check(tree)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, string(a.Comment), refusals)
		})
	}
}

// compare matches what was refused with the lines of want; lines that begin with # are prose.
func compare(t *testing.T, want string, refusals []Refusal) {
	t.Helper()
	rest := slices.Clone(refusals)
	for line := range strings.Lines(want) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		where, why, ok := strings.Cut(line, ": ")
		if !ok {
			t.Fatalf("not FILE:LINE: REASON: %q", line)
		}
		i := slices.IndexFunc(rest, func(r Refusal) bool {
			return fmt.Sprintf("%s:%d", r.File, r.Line) == where && strings.Contains(r.Why, why)
		})
		if i < 0 {
			t.Errorf("not refused: %s", line)
			continue
		}
		rest = slices.Delete(rest, i, i+1)
	}
	for _, r := range rest {
		t.Errorf("refused without need: %v", r)
	}
	for _, r := range refusals {
		if r.Do == "" || strings.HasSuffix(r.Why, ".") || strings.HasSuffix(r.Do, ".") {
			t.Errorf("a refusal says why and what to do, without a stop: %+v", r)
		}
	}
}

func TestLongFile(t *testing.T) {
	for lines, want := range map[int]int{maxLines: 0, maxLines + 1: 1} {
		text := "// Package wire is long.\npackage wire\n" + strings.Repeat("\n", lines-2)
		refusals, err := Check(fstest.MapFS{"wire/long.go": {Data: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		if len(refusals) != want {
			t.Errorf("%d lines: %v, want %d refusals", lines, refusals, want)
		}
	}
}

func TestTableIsSound(t *testing.T) {
	known := make(map[string]room)
	for _, r := range rooms {
		if _, twice := known[r.path]; twice {
			t.Errorf("%s has two rows", r.path)
		}
		known[r.path] = r
	}
	for _, r := range rooms {
		for _, p := range r.imports {
			to, ok := known[p]
			if !ok && p != "*" {
				t.Errorf("%s may import %s, which has no row", r.path, p)
			}
			if r.pure && !to.pure {
				t.Errorf("%s is pure and may import %s, which is not", r.path, p)
			}
			if p == r.path {
				t.Errorf("%s may import itself", p)
			}
		}
	}
	if slices.Contains(known["node"].imports, "sim") || slices.Contains(known["sim"].imports, "node") {
		t.Error("node and sim must not import each other: they are two drivers of one engine")
	}
	prefixes := make(map[string]bool)
	for _, l := range libraries {
		if prefixes[l.prefix] {
			t.Errorf("%s is listed twice", l.prefix)
		}
		prefixes[l.prefix] = true
		if l.why == "" {
			t.Errorf("%s has no reason", l.prefix)
		}
		for _, p := range l.rooms {
			if _, ok := known[p]; !ok && p != "*" {
				t.Errorf("%s is for %s, which has no row", l.prefix, p)
			}
		}
	}
}

func TestEmptyWord(t *testing.T) {
	rows := []struct {
		name   string
		joined bool
		want   string
	}{
		{"Base58", false, ""},
		{"BaseStore", false, "base"},
		{"StoreImpl", false, "impl"},
		{"SimpleImplicit", false, ""},
		{"HTTPHelper", false, "helper"},
		{"ConnManager", false, "manager"},
		{"Managed", false, ""},
		{"CommonPrefix", false, "common"},
		{"Uncommon", false, ""},
		{"storeutil", true, "util"},
		{"database", true, ""},
		{"testhelpers", true, "helpers"},
		{"http_utils", true, "utils"},
		{"simple", true, ""},
		{"storeimpl", true, "impl"},
	}
	for _, row := range rows {
		if got := emptyWord(row.name, row.joined); got != row.want {
			t.Errorf("emptyWord(%q, %v) = %q, want %q", row.name, row.joined, got, row.want)
		}
	}
}
