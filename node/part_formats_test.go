package node

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"dray/tensor"
	"dray/unixfs"
)

// makeGGUF returns a file with a quantised matrix of 64 × 256 and a vector of floats.
func makeGGUF() []byte {
	var b []byte
	u32 := func(v uint32) { b = binary.LittleEndian.AppendUint32(b, v) }
	u64 := func(v uint64) { b = binary.LittleEndian.AppendUint64(b, v) }
	str := func(s string) {
		u64(uint64(len(s)))
		b = append(b, s...)
	}
	b = append(b, "GGUF"...)
	u32(3)
	u64(2) // tensors
	u64(2) // keys
	str("general.architecture")
	u32(8)
	str("llama")
	str("llama.attention.head_count_kv")
	u32(4)
	u32(2)
	const matrix = 64 * 256 / 32 * 18
	str("blk.0.attn_q.weight")
	u32(2)
	u64(256)
	u64(64)
	u32(2) // Q4_0
	u64(0)
	str("blk.0.attn_norm.weight")
	u32(1)
	u64(256)
	u32(0) // F32
	u64(matrix)
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	data := make([]byte, matrix+256*4)
	rand.NewChaCha8(sha256.Sum256([]byte("gguf"))).Read(data)
	return append(b, data...)
}

// makeNPY returns an array of rows × 100 bytes.
func makeNPY(rows int, seed string) []byte {
	header := "{'descr': '|u1', 'fortran_order': False, 'shape': (" + string(rune('0'+rows)) + ", 100), }"
	for (10+len(header)+1)%64 != 0 {
		header += " "
	}
	header += "\n"
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	b = append(b, header...)
	data := make([]byte, rows*100)
	rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(data)
	return append(b, data...)
}

func makeNPZ(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, name := range []string{"first", "second", "third"} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(makeNPY(8, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// formatTest has a file under small leaves in a node without a network.
type formatTest struct {
	n    *Node
	dir  string
	data []byte
	root cid.Cid
}

func newFormatTest(t *testing.T, data []byte) *formatTest {
	t.Helper()
	f := &formatTest{n: testNode(t, nil), dir: t.TempDir(), data: data}
	path := filepath.Join(f.dir, "source")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	small := unixfs.V1()
	small.Name, small.ChunkSize = "small", 333
	added, err := f.n.Add(t.Context(), path, AddConfig{Profile: small})
	if err != nil {
		t.Fatal(err)
	}
	f.root = added.Root
	return f
}

func (f *formatTest) get(t *testing.T, s Selection) (data []byte, err error) {
	t.Helper()
	path := filepath.Join(f.dir, "out")
	_, err = f.n.FetchPart(t.Context(), PartConfig{TensorsConfig: TensorsConfig{Root: f.root}, Selection: s, Path: path, Replace: true})
	if err != nil {
		return nil, err
	}
	data, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, nil
}

// wantOnly checks that got has the bytes of want in the ranges, and zeros in those of absent.
func wantOnly(t *testing.T, got, want []byte, present, absent []tensor.Range) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
	for _, r := range present {
		if !bytes.Equal(got[r.Begin:r.End], want[r.Begin:r.End]) {
			t.Errorf("bytes %v are not those of the source", r)
		}
	}
	for _, r := range absent {
		if len(bytes.Trim(got[r.Begin:r.End], "\x00")) > 0 {
			t.Errorf("bytes %v are there", r)
		}
	}
}

func TestFetchPartGGUF(t *testing.T) {
	f := newFormatTest(t, makeGGUF())
	c, err := f.n.Tensors(t.Context(), TensorsConfig{Root: f.root})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Pick()
	if err != nil || m.Config != (ModelConfig{Architecture: "gguf", KVHeads: 2}) || len(m.Tensors) != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	matrix, norm := m.Tensors[0], m.Tensors[1]
	// What safetensors can hold becomes one; what it cannot is named, with the way out.
	got, err := f.get(t, Selection{Patterns: []string{"*norm*"}})
	if err != nil {
		t.Fatal(err)
	}
	x := readCheckpoint(t, got).Find("blk.0.attn_norm.weight")
	if x == nil || x.DType.Name != "F32" || !bytes.Equal(got[x.Begin:x.End], f.data[norm.Begin:norm.End]) {
		t.Errorf("the vector: %+v", x)
	}
	_, err = f.get(t, Selection{})
	if !errors.Is(err, tensor.ErrForeign) || !strings.Contains(err.Error(), `"blk.0.attn_q.weight"`) || !strings.Contains(err.Error(), "--sparse") {
		t.Errorf("quantised: %v", err)
	}
	// The quantised matrix's half, where it was.
	if got, err = f.get(t, Selection{Patterns: []string{"*attn_q*"}, Sparse: true, TP: tensor.TP{Rank: 1, World: 2}}); err != nil {
		t.Fatal(err)
	}
	half := matrix.Begin + matrix.Bytes()/2
	wantOnly(t, got, f.data, []tensor.Range{{Begin: 0, End: c.Files[0].Tensors.DataStart}, {Begin: half, End: matrix.End}},
		[]tensor.Range{{Begin: matrix.Begin, End: half}, norm.Range()})
}

func TestFetchPartNumpy(t *testing.T) {
	f := newFormatTest(t, makeNPY(9, "npy"))
	got, err := f.get(t, Selection{})
	if err != nil {
		t.Fatal(err)
	}
	x := readCheckpoint(t, got).Find("arr_0")
	if x == nil || x.DType.Name != "U8" || !bytes.Equal(got[x.Begin:x.End], f.data[len(f.data)-900:]) {
		t.Errorf("the array: %+v", x)
	}

	f = newFormatTest(t, makeNPZ(t))
	c, err := f.n.Tensors(t.Context(), TensorsConfig{Root: f.root})
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := c.Models[0].Tensors[0], c.Models[0].Tensors[1], c.Models[0].Tensors[2]
	if got, err = f.get(t, Selection{Patterns: []string{"second"}}); err != nil {
		t.Fatal(err)
	}
	if x = readCheckpoint(t, got).Find("second"); x == nil || !bytes.Equal(got[x.Begin:x.End], f.data[second.Begin:second.End]) {
		t.Errorf("the array: %+v", x)
	}
	// Sparse, it is still a zip file.
	if got, err = f.get(t, Selection{Patterns: []string{"second"}, Sparse: true}); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, got, f.data, []tensor.Range{second.Range(), {Begin: third.End, End: int64(len(got))}},
		[]tensor.Range{first.Range(), third.Range()})
	z, err := zip.NewReader(bytes.NewReader(got), int64(len(got)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := z.Open("second.npy")
	if err != nil {
		t.Fatal(err)
	}
	var array bytes.Buffer
	if _, err := array.ReadFrom(r); err != nil || !bytes.Equal(array.Bytes(), makeNPY(8, "second")) {
		t.Errorf("second.npy: %d bytes, %v", array.Len(), err)
	}
}

// Another implementation reads what FetchPart writes: tensor/testdata/safetensors.py. Only the long tests need Python.
func TestFetchPartIndependent(t *testing.T) {
	list := func(path string) map[string]string {
		lines := make(map[string]string)
		var text string
		if python, err := exec.LookPath("python3"); os.Getenv("DRAY_TEST") == "long" && err == nil {
			cmd := exec.Command(python, filepath.Join("..", "tensor", "testdata", "safetensors.py"), "read", path)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			text = string(out)
		} else {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, x := range readCheckpoint(t, data).Tensors {
				sum := sha256.Sum256(data[x.Begin:x.End])
				fmt.Fprintf(&b, "{\"name\": \"%s\", %v %v %x}\n", x.Name, x.DType, x.Shape, sum)
			}
			text = b.String()
		}
		for line := range strings.Lines(text) {
			name := strings.Split(line, `"`)[3]
			lines[name] = line
		}
		return lines
	}
	n, dir := testNode(t, nil), t.TempDir()
	c := makeCheckpoint(t, filepath.Join(dir, "model.safetensors"), smallModel())
	added, err := n.Add(t.Context(), c.path, AddConfig{})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "part.safetensors")
	cfg := PartConfig{
		TensorsConfig: TensorsConfig{Root: added.Root}, Path: out,
		Selection: Selection{Patterns: []string{"*.{1,3}.*", "model.norm.*"}, Order: tensor.ByLayers},
	}
	if _, err := n.FetchPart(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	whole, part := list(c.path), list(out)
	if len(whole) != 31 || len(part) != 15 {
		t.Fatalf("%d tensors of %d", len(part), len(whole))
	}
	for name, line := range part {
		if whole[name] != line {
			t.Errorf("%s: %q, in the source %q", name, line, whole[name])
		}
	}
}
