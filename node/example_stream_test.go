package node_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dray/exchange"
	"dray/node"
	"dray/store"
	"dray/tensor"
	"dray/transport"
)

// twoNodes returns two nodes in one process, the first of which has a model of two layers whose file begins with the head.
func twoNodes(ctx context.Context) (bob *node.Node, model node.TensorsConfig, closeBoth func()) {
	bf16, _ := tensor.LookupDType("BF16")
	var entries []tensor.Entry
	for _, name := range []string{"lm_head", "model.layers.1.mlp", "model.layers.0.mlp", "model.embed_tokens"} {
		entries = append(entries, tensor.Entry{Name: name + ".weight", DType: bf16, Shape: []int64{300, 512}})
	}
	header, size, err := tensor.AppendHeader(nil, entries, nil)
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "dray-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")
	data := append(header, make([]byte, size)...)
	for i := range data[len(header):] {
		data[len(header)+i] = byte(i >> 10) // so that no two tensors are equal
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		log.Fatal(err)
	}
	network := transport.NewMemory(transport.MemoryConfig{})
	var ends []func()
	open := func() *node.Node {
		host, blocks := network.NewHost(), store.NewMem(0)
		n, err := node.New(node.Config{Store: blocks, Network: host})
		if err != nil {
			log.Fatal(err)
		}
		ends = append(ends, func() { n.Close(); host.Close(); blocks.Close() })
		return n
	}
	alice := open()
	bob = open()
	added, err := alice.Add(ctx, path, node.AddConfig{Copy: true})
	if err != nil {
		log.Fatal(err)
	}
	model = node.TensorsConfig{Root: added.Root, Peers: []transport.Peer{{ID: alice.Self(), Addrs: alice.Addrs()}}}
	return bob, model, func() {
		for _, end := range ends {
			end()
		}
	}
}

// A model is loaded in the order in which its layers compute. The graph says what each step needs; the first step is urgent,
// which it lends to its inputs.
func ExampleNode_Stream() {
	ctx := context.Background()
	n, model, closeBoth := twoNodes(ctx)
	defer closeBoth()

	g := &tensor.Graph{}
	g.Add("step 0", "model.embed_tokens.weight", "model.layers.0.mlp.weight")
	g.Add("step 1", "step 0", "model.layers.1.mlp.weight")
	g.Add("logits", "step 1", "lm_head.weight")
	cfg := node.StreamConfig{
		TensorsConfig: model,
		Graph:         g,
		Uses:          map[string]node.Use{"step 0": {Class: exchange.High, Deadline: 10 * time.Second}},
		Window:        tensor.Marks{Pause: tensor.Load{Bytes: 32 << 20}},
	}
	for piece, err := range n.Stream(ctx, cfg) {
		if err != nil {
			log.Fatal(err)
		}
		// Here piece.Data would go to the device, at piece.Offset of the tensor.
		if piece.Last {
			fmt.Println(piece.Name, piece.DType, piece.Shape, piece.Size)
		}
	}
	// Output:
	// model.embed_tokens.weight BF16 [300 512] 307200
	// model.layers.0.mlp.weight BF16 [300 512] 307200
	// model.layers.1.mlp.weight BF16 [300 512] 307200
	// lm_head.weight BF16 [300 512] 307200
}

// A whole model is fetched in the order of use, and the loader hears when it can begin with a layer. However slowly it
// listens, the fetch goes on.
func ExampleWatch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n, model, closeBoth := twoNodes(ctx)
	defer closeBoth()

	w := node.NewWatch()
	var fetching sync.WaitGroup
	fetching.Go(func() {
		_, _ = n.Fetch(ctx, node.FetchConfig{Root: model.Root, Peers: model.Peers, Use: tensor.ByLayers, Watch: w})
	}) // the last event has the error
	missing := 2 // the embedding and the one tensor of the first layer
	for e := range w.Events(ctx) {
		switch e := e.(type) {
		case node.TensorReady:
			if strings.Contains(e.Name, "embed") || strings.Contains(e.Name, ".layers.0.") {
				if missing--; missing == 0 {
					fmt.Println("layer 0 can be computed")
				}
			}
		case node.FetchCompleted:
			fmt.Println("completed:", e.Progress.Done == e.Progress.Total, e.Err)
		}
	}
	fetching.Wait()
	// Output:
	// layer 0 can be computed
	// completed: true <nil>
}
