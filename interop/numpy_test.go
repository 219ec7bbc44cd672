package interop

import (
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dray"
	"dray/node"
	"dray/transport"
)

// array is a line that testdata/model.py and the reader of package tensor's testdata print.
type array struct {
	File   string `json:"file"`
	Name   string `json:"name"`
	DType  string `json:"dtype"`
	Shape  []int  `json:"shape"`
	SHA256 string `json:"sha256"`
}

// TestNumpy moves files that numpy, or a few lines of Python, wrote from one Dray to another, and has them read back by
// such: byte for byte the same, and every tensor the same. Only the long tests need Python with numpy, which `make test`
// installs; the short ones move a file written here and compare its bytes.
func TestNumpy(t *testing.T) {
	src := filepath.Join(t.TempDir(), "model")
	mkdir(t, src)
	long := os.Getenv("DRAY_TEST") == "long"
	var written []array
	if long {
		written = python(t, "testdata/model.py", "write", src)
	} else {
		t.Log("without numpy: DRAY_TEST is not long")
		file, _ := model(3_000_000, 77, 1, 2_000_001)
		write(t, filepath.Join(src, "model.safetensors"), file)
	}

	a, b := newDray(t, overTCP), newDray(t, overTCP)
	added, err := a.Add(within(t), src, node.AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	want := 4
	if long {
		want = 0
		for _, w := range written {
			if !slices.Contains(w.Shape, 0) { // what has no bytes is nowhere
				want++
			}
		}
	}
	if added.Tensors != want || added.MalformedFiles > 0 {
		t.Errorf("%d tensors, want %d; malformed %v", added.Tensors, want, added.Malformed)
	}
	out := filepath.Join(t.TempDir(), "out")
	from := transport.Peer{ID: dray.PeerID(a.Self()), Addrs: a.Addrs()}
	b.get(t, added.Root, out, from, "")
	sameTree(t, out, src)
	if !long {
		return
	}
	read := python(t, "../tensor/testdata/safetensors.py", "read", filepath.Join(out, "model.safetensors"))
	for i := range read {
		read[i].File = "model.safetensors"
	}
	read = append(read, python(t, "testdata/model.py", "read", out)...)
	order := func(x, y array) int { return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Name, y.Name)) }
	slices.SortFunc(read, order)
	slices.SortFunc(written, order)
	same := func(x, y array) bool {
		return order(x, y) == 0 && x.DType == y.DType && slices.Equal(x.Shape, y.Shape) && x.SHA256 == y.SHA256
	}
	if !slices.EqualFunc(read, written, same) {
		t.Errorf("read\n%v\nwritten were\n%v", read, written)
	}
}

// python runs a script that prints arrays.
func python(t testing.TB, args ...string) []array {
	t.Helper()
	cmd := exec.Command(cmp.Or(os.Getenv("DRAY_PYTHON"), "python3"), args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s\nthe long tests need Python with numpy: install python3-numpy, or name one in DRAY_PYTHON",
			cmd.Args, err, &complaint)
	}
	var all []array
	for line := range strings.Lines(string(out)) {
		var a array
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, a)
	}
	return all
}
