package mirror

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"dray"
	"dray/names"
	"dray/unixfs"
)

// errWrong means that what came is not what the upstream's commit says.
var errWrong = errors.New("what came does not hash to what the commit says")

// digesting goes over a file from its beginning: it computes what the commit promises, and the tree above the leaves.
type digesting struct {
	file        names.File
	sum         hash.Hash
	whole, part *unixfs.Builder
	put         func(...dray.Block) error
	nodes       []dray.Block // not put yet
	at          int64
	leaves      int
}

func newDigesting(ctx context.Context, f names.File, blocks Blocks) *digesting {
	d := &digesting{file: f}
	d.put = func(list ...dray.Block) error { return blocks.Put(ctx, list...) }
	if f.SHA256 != "" {
		d.sum = sha256.New()
	} else {
		d.sum = sha1.New() // as git does; see keyOf
		fmt.Fprintf(d.sum, "blob %d\x00", f.Size)
	}
	d.whole = unixfs.NewBuilder(profile, d.emit)
	d.part = unixfs.NewBuilder(profile, d.emit)
	return d
}

func (d *digesting) emit(b dray.Block) error {
	if d.nodes = append(d.nodes, b); len(d.nodes) < 64 {
		return nil
	}
	return d.flush()
}

func (d *digesting) flush() error {
	err := d.put(d.nodes...)
	clear(d.nodes)
	d.nodes = d.nodes[:0]
	return err
}

// leaf takes the next leaf's content.
func (d *digesting) leaf(e entry, content []byte) error {
	if e.begin != d.at || int64(len(content)) != e.end-e.begin {
		return fmt.Errorf("%w: a leaf of %d bytes at byte %d, where one of %d belongs", errWrong, len(content), d.at, e.end-e.begin)
	}
	d.sum.Write(content)
	d.at = e.end
	d.leaves++
	n := int64(len(content))
	if e.edge&edgeInside == 0 {
		return d.whole.AddLeaf(e.leaf, n, n)
	}
	if e.edge&edgeFirst != 0 {
		d.part.Reset()
	}
	if err := d.part.AddLeaf(e.leaf, n, n); err != nil || e.edge&edgeLast == 0 {
		return err
	}
	section, err := d.part.Finish()
	if err != nil {
		return err
	}
	return d.whole.AddNode(section)
}

// finish returns the root, all of which is in the store, or errWrong.
func (d *digesting) finish() (unixfs.Ref, error) {
	want := d.file.SHA256
	if want == "" {
		want = d.file.Blob
	}
	if got := hex.EncodeToString(d.sum.Sum(nil)); d.at != d.file.Size || got != want {
		return unixfs.Ref{}, fmt.Errorf("%w: %d bytes with digest %s, not %d with %s", errWrong, d.at, got, d.file.Size, want)
	}
	root, err := d.whole.Finish()
	if err != nil {
		return unixfs.Ref{}, fmt.Errorf("%w: %w", errWrong, err)
	}
	if root.Size != d.file.Size {
		return unixfs.Ref{}, fmt.Errorf("%w: sections do not end", errWrong)
	}
	return root, d.flush()
}
