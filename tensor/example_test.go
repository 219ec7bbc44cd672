package tensor_test

import (
	"bytes"
	"fmt"

	"dray/tensor"
)

// modelFile is a safetensors file of three tensors.
func modelFile() []byte {
	f16, _ := tensor.LookupDType("F16")
	header, n, err := tensor.AppendHeader(nil, []tensor.Entry{
		{Name: "model.embed.weight", DType: f16, Shape: []int64{8, 4}},
		{Name: "model.layers.0.q_proj.weight", DType: f16, Shape: []int64{4, 4}},
		{Name: "model.layers.1.q_proj.weight", DType: f16, Shape: []int64{4, 4}},
	}, nil)
	if err != nil {
		panic(err)
	}
	return append(header, make([]byte, n)...)
}

// Select layers by a pattern, take this rank's rows of them, and plan the file that holds just those.
func ExampleNewSubset() {
	file := modelFile()
	f, err := tensor.Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		fmt.Println(err)
		return
	}
	chosen, err := tensor.Select(f.Names(), []string{"model.layers.[0-7].*"})
	if err != nil {
		fmt.Println(err)
		return
	}
	rules, err := tensor.NewTPTable(tensor.TPRules("llama"))
	if err != nil {
		fmt.Println(err)
		return
	}
	var pieces []tensor.Piece
	for _, i := range chosen {
		t := &f.Tensors[i]
		cut, err := tensor.TP{Rank: 1, World: 2}.Slice(t.Name, t.Shape, rules)
		if err != nil {
			fmt.Println(err)
			return
		}
		pieces = append(pieces, tensor.Piece{Tensor: t, Slices: cut})
	}
	sub, err := tensor.NewSubset(pieces, f.Metadata)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range sub.Parts {
		for r := range p.Runs.All() {
			fmt.Println(pieces[p.Piece].Tensor.Name, p.Runs.Shape(), "from byte", r.Begin-f.DataStart, "of the data, bytes:", r.Len())
		}
	}
	// Output:
	// model.layers.0.q_proj.weight [2 4] from byte 80 of the data, bytes: 16
	// model.layers.1.q_proj.weight [2 4] from byte 112 of the data, bytes: 16
}

// A pattern that matches nothing says what is near.
func ExampleSelect() {
	_, err := tensor.Select([]string{"lm_head.weight", "model.norm.weight"}, []string{"lm_haed.*"})
	fmt.Println(err)
	// Output:
	// select: no tensor matches "lm_haed.*"; the nearest are "lm_head.weight", "model.norm.weight"
}

// Leaves begin at tensors, whatever lies before them.
func ExampleFile_Chunks() {
	file := modelFile()
	f, err := tensor.Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		fmt.Println(err)
		return
	}
	for c := range f.Chunks(48) {
		if c.Section.Kind == tensor.Data {
			fmt.Println(f.Tensors[c.Section.Tensor].Name, c.Begin-f.DataStart, c.End-f.DataStart)
		}
	}
	// Output:
	// model.embed.weight 0 48
	// model.embed.weight 48 64
	// model.layers.0.q_proj.weight 64 96
	// model.layers.1.q_proj.weight 96 128
}
