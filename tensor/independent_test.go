package tensor

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestIndependent has another implementation read what this package plans and write what it reads:
// testdata/safetensors.py. Only the long tests need Python; the rest of the time, and where there is none, this
// package's own reader takes its part.
func TestIndependent(t *testing.T) {
	run := func(mode, path string) string { return listHashes(t, path) }
	if python, err := exec.LookPath(cmp.Or(os.Getenv("DRAY_PYTHON"), "python3")); os.Getenv("DRAY_TEST") == "long" && err == nil {
		run = func(mode, path string) string {
			cmd := exec.Command(python, "testdata/safetensors.py", mode, path)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s %s: %v", mode, path, err)
			}
			return string(out)
		}
		theirs := filepath.Join(t.TempDir(), "theirs.safetensors")
		if want := run("write", theirs); listHashes(t, theirs) != want {
			t.Errorf("written by Python: read\n%swant\n%s", listHashes(t, theirs), want)
		}
	} else {
		t.Log("without Python: DRAY_TEST is not long, or there is no python3")
	}

	// A model of two matrices and a vector: this rank's part of it, read back by the other.
	src := st(`{"l.0.q_proj.weight":{"dtype":"F32","shape":[4,6],"data_offsets":[0,96]},"l.0.o_proj.weight":{"dtype":"F16","shape":[4,6],`+
		`"data_offsets":[96,144]},"l.0.norm":{"dtype":"U8","shape":[5],"data_offsets":[144,149]}}`, 149)
	f := mustRead(t, src)
	for i := range 149 {
		src[f.DataStart+int64(i)] = byte(i)
	}
	rules := table(t, TPRules("llama"))
	var pieces []Piece
	for i := range f.Tensors {
		x := &f.Tensors[i]
		sl, err := TP{Rank: 1, World: 2}.Slice(x.Name, x.Shape, rules)
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, Piece{Tensor: x, Slices: sl})
	}
	sub, err := NewSubset(pieces, f.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(t.TempDir(), "ours.safetensors")
	if err := os.WriteFile(ours, assemble(sub, src), 0o600); err != nil {
		t.Fatal(err)
	}
	// What the rank must have, worked out from the matrices: the last rows, and the last columns.
	data := src[f.DataStart:]
	columns := bytes.Join([][]byte{data[102:108], data[114:120], data[126:132], data[138:144]}, nil)
	var want string
	for _, x := range []struct {
		name, dtype, shape string
		data               []byte
	}{
		{"l.0.q_proj.weight", "F32", "[2, 6]", data[48:96]},
		{"l.0.o_proj.weight", "F16", "[4, 3]", columns},
		{"l.0.norm", "U8", "[5]", data[144:149]},
	} {
		want += fmt.Sprintf(`{"name": "%s", "dtype": "%s", "shape": %s, "sha256": "%x"}`+"\n", x.name, x.dtype, x.shape, sha256.Sum256(x.data))
	}
	if got := run("read", ours); got != want {
		t.Errorf("read\n%swant\n%s", got, want)
	}
}

// listHashes prints what testdata/safetensors.py prints, by this package's reader.
func listHashes(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	f := mustRead(t, b)
	for _, x := range f.Tensors {
		name, err := json.Marshal(x.Name)
		if err != nil {
			t.Fatal(err)
		}
		// Python escapes what is not ASCII.
		var ascii strings.Builder
		for _, r := range string(name) {
			if r < 0x80 {
				ascii.WriteRune(r)
			} else {
				fmt.Fprintf(&ascii, `\u%04x`, r)
			}
		}
		shape := strings.ReplaceAll(fmt.Sprint(x.Shape), " ", ", ")
		fmt.Fprintf(&out, `{"name": %s, "dtype": "%s", "shape": %s, "sha256": "%x"}`+"\n", &ascii, x.DType, shape, sha256.Sum256(b[x.Begin:x.End]))
	}
	return out.String()
}
