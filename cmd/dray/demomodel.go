package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"

	"dray"
	"dray/node"
	"dray/tensor"
)

const (
	demoSeed    = "dray demo"
	demoLayers  = 4
	demoPattern = "model.layers.2.*"
)

// demoModel is a model that means nothing: the names, types and shapes are those of a common architecture, the numbers are
// random, and the same each time.
type demoModel struct {
	entries []tensor.Entry
	header  []byte
	data    int64
}

// newDemoModel returns a model of about so many bytes: seven tenths are the layers, the rest embedding and head.
func newDemoModel(bytes int64) *demoModel {
	const (
		step    = 64    // widths are multiples of it
		inLayer = 10.75 // times the width squared: attention 2.5, feed-forward 8.25
	)
	numbers := float64(bytes) / 2
	width := max(int64(math.Sqrt(0.7*numbers/(demoLayers*inLayer)))/step*step, step)
	inner := width * 11 / 4
	vocabulary := max((int64(numbers)-demoLayers*(5*width*width/2+3*width*inner))/(2*width), step)
	m := &demoModel{}
	bf16, _ := tensor.LookupDType("BF16")
	add := func(name string, shape ...int64) {
		m.entries = append(m.entries, tensor.Entry{Name: name, DType: bf16, Shape: shape})
	}
	add("lm_head.weight", vocabulary, width)
	add("model.embed_tokens.weight", vocabulary, width)
	for i := range demoLayers {
		in := func(name string, shape ...int64) { add(fmt.Sprintf("model.layers.%d.%s.weight", i, name), shape...) }
		in("input_layernorm", width)
		in("mlp.down_proj", width, inner)
		in("mlp.gate_proj", inner, width)
		in("mlp.up_proj", inner, width)
		in("post_attention_layernorm", width)
		in("self_attn.k_proj", width/4, width)
		in("self_attn.o_proj", width, width)
		in("self_attn.q_proj", width, width)
		in("self_attn.v_proj", width/4, width)
	}
	add("model.norm.weight", width)
	var err error
	if m.header, m.data, err = tensor.AppendHeader(nil, m.entries, map[string]string{"format": "pt"}); err != nil {
		panic(err) // the names differ and the type is one of the format's
	}
	return m
}

func (m *demoModel) size() int64 { return int64(len(m.header)) + m.data }

// inFirstLayer reports whether a tensor of the model is needed to compute the first layer.
func inFirstLayer(name string) bool {
	return name == "model.embed_tokens.weight" || strings.HasPrefix(name, "model.layers.0.")
}

// write writes the model's file.
func (m *demoModel) write(ctx context.Context, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err = file.Write(m.header); err == nil {
		source := rand.NewChaCha8(sha256.Sum256([]byte(demoSeed)))
		_, err = io.CopyBuffer(onlyWriter{file}, &interruptible{ctx, io.LimitReader(source, m.data)}, make([]byte, 1<<20))
	}
	return errors.Join(err, file.Close())
}

// onlyWriter hides what else a file can do, so that it is written with the buffer that was given.
type onlyWriter struct{ io.Writer }

// interruptible reads until a context ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}

// sameTensors compares the tensors in a file with those that the whole has under these names.
func sameTensors(whole, part string) error {
	files, readers := make([]*tensor.File, 2), make([]*os.File, 2)
	for i, path := range []string{whole, part} {
		c, err := node.LocalTensors(path)
		if err != nil {
			return err
		}
		files[i] = c.Files[0].Tensors
		if readers[i], err = os.Open(path); err != nil {
			return err
		}
		defer readers[i].Close()
	}
	for i := range files[1].Tensors {
		t := &files[1].Tensors[i]
		x := files[0].Find(t.Name)
		if x == nil || x.Bytes() != t.Bytes() {
			return fmt.Errorf("%w: tensor %s is not what was shared", dray.ErrCorrupt, t.Name)
		}
		a, b := make([]byte, t.Bytes()), make([]byte, t.Bytes())
		if _, err := readers[0].ReadAt(a, x.Begin); err != nil {
			return err
		}
		if _, err := readers[1].ReadAt(b, t.Begin); err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%w: tensor %s is not what was shared", dray.ErrCorrupt, t.Name)
		}
	}
	return nil
}
