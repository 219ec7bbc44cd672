package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"dray/tensor"
)

func cmdCheckpoint(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 2, "checkpoint FILE… FIRST-LAST")
	var first, last int
	_, err := fmt.Sscanf(args[len(args)-1], "%d-%d", &first, &last)
	ts.Check(err)
	files := args[:len(args)-1]
	bf16, _ := tensor.LookupDType("BF16")
	f32, _ := tensor.LookupDType("F32")
	entries := make([][]tensor.Entry, len(files))
	index := make(map[string]string)
	add := func(layer int, name string, d tensor.DType, shape ...int64) {
		k := min((layer-first)*len(files)/(last-first+1), len(files)-1)
		entries[k] = append(entries[k], tensor.Entry{Name: name, DType: d, Shape: shape})
		index[name] = filepath.Base(files[k])
	}
	add(first, "model.embed_tokens.weight", bf16, 640, 256)
	for i := first; i <= last; i++ {
		l := fmt.Sprintf("model.layers.%d.", i)
		add(i, l+"input_layernorm.weight", f32, 256)
		add(i, l+"mlp.down_proj.weight", bf16, 256, 640)
		add(i, l+"self_attn.q_proj.weight", bf16, 768, 256)
	}
	add(last, "lm_head.weight", bf16, 640, 256)
	for k, list := range entries {
		header, n, err := tensor.AppendHeader(nil, list, map[string]string{"format": "pt"})
		ts.Check(err)
		data := append(header, make([]byte, n)...)
		rand.NewChaCha8(sha256.Sum256([]byte(files[k]))).Read(data[len(header):])
		ts.Check(os.WriteFile(ts.MkAbs(files[k]), data, 0o644))
	}
	if len(files) > 1 {
		b, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": index})
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(filepath.Dir(ts.MkAbs(files[0])), tensor.IndexName), b, 0o644))
	}
}

func cmdSameTensors(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 3, "tensors FILE COUNT SOURCE…")
	read := func(name string) ([]byte, *tensor.File) {
		data, err := os.ReadFile(ts.MkAbs(name))
		ts.Check(err)
		f, err := tensor.ReadAs(tensor.Safetensors, bytes.NewReader(data), int64(len(data)))
		ts.Check(err)
		return data, f
	}
	data, f := read(args[0])
	if strconv.Itoa(len(f.Tensors)) != args[1] {
		ts.Fatalf("%d tensors, want %s: %q", len(f.Tensors), args[1], f.Names())
	}
	found := 0
	for _, name := range args[2:] {
		source, g := read(name)
		for i := range f.Tensors {
			x := &f.Tensors[i]
			if y := g.Find(x.Name); y != nil {
				found++
				if x.DType != y.DType || !slices.Equal(x.Shape, y.Shape) || !bytes.Equal(data[x.Begin:x.End], source[y.Begin:y.End]) {
					ts.Fatalf("tensor %q is not as in %s", x.Name, name)
				}
			}
		}
	}
	if found != len(f.Tensors) {
		ts.Fatalf("%d of %d tensors are in the sources", found, len(f.Tensors))
	}
}

func TestPrintable(t *testing.T) {
	for name, want := range map[string]string{
		"a.b": "a.b", "ä 字": "ä 字", "": `""`, "a\x1b[31m": `"a\x1b[31m"`, "a\nb": `"a\nb"`, "\xff": `"\xff"`, "\u202e": `"\u202e"`,
	} {
		if got := printable(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}
