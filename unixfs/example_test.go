package unixfs_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/unixfs"
)

// blocks is the simplest of Getters.
type blocks map[cid.Cid]dray.Block

func (b blocks) put(block dray.Block) error { b[block.CID()] = block; return nil }

func (b blocks) Get(_ context.Context, c cid.Cid) (dray.Block, error) {
	if block, ok := b[c]; ok {
		return block, nil
	}
	return dray.Block{}, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound}
}

// A file is cut into leaves by the caller, who hashes them and tells the Builder.
func Example() {
	p := unixfs.V1()
	p.ChunkSize = 4 // so that a short text has several leaves
	have := blocks{}
	b := unixfs.NewBuilder(p, have.put)
	for _, content := range []string{"hell", "o wo", "rld"} {
		size := int64(len(content))
		block := p.AppendLeafHead(nil, size)
		block = append(block, content...)
		block = p.AppendLeafTail(block, size)
		leaf, err := dray.Hashed(p.LeafPrefix(), block)
		if err != nil {
			log.Fatal(err)
		}
		have.put(leaf)
		if err := b.AddLeaf(leaf.CID(), size, int64(leaf.Size())); err != nil {
			log.Fatal(err)
		}
	}
	root, err := b.Finish()
	if err != nil {
		log.Fatal(err)
	}

	r, err := unixfs.NewReader(context.Background(), have, root.CID, unixfs.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(r)
	fmt.Println(len(have), root.Size, string(text), err)
	// Output: 4 11 hello world <nil>
}

// A Walk is fed with what it needs, in whatever way the blocks arrive.
func ExampleWalk() {
	have := blocks{}
	d := unixfs.NewDirBuilder(unixfs.V1(), have.put)
	for _, name := range []string{"b", "a"} {
		empty, err := unixfs.NewBuilder(unixfs.V1(), have.put).Finish()
		if err != nil {
			log.Fatal(err)
		}
		if err := d.Add(name, empty); err != nil {
			log.Fatal(err)
		}
	}
	root, err := d.Finish()
	if err != nil {
		log.Fatal(err)
	}

	w := unixfs.NewWalk(root.CID, unixfs.WalkConfig{})
	for !w.Done() {
		for _, c := range w.Need(nil) {
			if err := w.Feed(have[c]); err != nil {
				log.Fatal(err)
			}
		}
	}
	for _, e := range w.Entries() {
		fmt.Printf("%-9v %q %d\n", e.Kind, e.Path, e.Leaves)
	}
	// Output:
	// directory "" 0
	// file      "a" 1
	// file      "b" 1
}
