package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

const (
	sparseTensors = 16
	// markEvery is how far apart the bytes are that make each part of the file unlike every other; equal leaves would
	// be moved once.
	markEvery = 64 << 10
	// sparseRandom is how much of the first tensor is random.
	sparseRandom = 16 << 20
)

// safetensor is one entry of a safetensors header.
type safetensor struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// makeSparse writes a safetensors file of tensors that are mostly holes, about size bytes long. It takes a hundredth of
// that on the disk, and a program cannot tell without looking.
func makeSparse(path string, size int64) (*dataset, error) {
	const row = 4096 // bytes
	each := size / sparseTensors / row * row
	if each == 0 {
		return nil, fmt.Errorf("%d bytes are too few for %d tensors", size, sparseTensors)
	}
	header := map[string]safetensor{}
	for i := range int64(sparseTensors) {
		header[fmt.Sprintf("model.layers.%d.weight", i)] = safetensor{
			DType: "U8", Shape: []int64{each / row, row}, Offsets: [2]int64{i * each, (i + 1) * each},
		}
	}
	text, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	start := int64(8 + len(text))
	set := &dataset{name: "sparse", path: path, size: start + sparseTensors*each}
	return set, writeFile(path, func(f *os.File) error {
		if _, err := f.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)); err != nil {
			return err
		}
		if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{4}), min(sparseRandom, each)); err != nil {
			return err
		}
		if err := f.Truncate(set.size); err != nil {
			return err
		}
		for at := start + min(sparseRandom, each); at+8 <= set.size; at += markEvery {
			if _, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(at)), at); err != nil {
				return err
			}
		}
		return nil
	})
}
