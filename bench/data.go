package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
	carstorage "github.com/ipld/go-car/v2/storage"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

const starSize = 100 // bytes in each tiny block

// dataset is what a row moves. It is made once and not changed after.
type dataset struct {
	// name is "file", "sparse", "list" or "star".
	name string
	// path is the file, or the CAR that holds the blocks of a list or a star.
	path string
	// size is the number of payload bytes, for the rates.
	size int64
	// sum is the hex SHA-256 of the file; only for a file. Without it, what is received is compared with path.
	sum string
	// blocks is the number of blocks and root the CID on top; only for a list or a star.
	blocks int
	root   cid.Cid
}

// isFile reports whether the data set is a file, and not a graph of blocks.
func (d *dataset) isFile() bool { return d.blocks == 0 }

// makeFile writes size reproducible random bytes to path.
func makeFile(path string, size int64, seed uint64) (*dataset, error) {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	h := sha256.New()
	if err := writeFile(path, func(f *os.File) error {
		_, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(rand.NewChaCha8(key), size))
		return err
	}); err != nil {
		return nil, err
	}
	return &dataset{name: "file", path: path, size: size, sum: hex.EncodeToString(h.Sum(nil))}, nil
}

// makeList writes a CAR of a linked list: dag-cbor nodes of which each names the next.
func makeList(path string, nodes int) (*dataset, error) {
	set := &dataset{name: "list", path: path, blocks: nodes}
	blocks := make([]dray.Block, nodes)
	for i := nodes - 1; i >= 0; i-- {
		b, err := cborBlock(qp.BuildMap(basicnode.Prototype.Any, -1, func(m datamodel.MapAssembler) {
			qp.MapEntry(m, "i", qp.Int(int64(i)))
			if i < nodes-1 {
				qp.MapEntry(m, "next", qp.Link(cidlink.Link{Cid: blocks[i+1].CID()}))
			}
		}))
		if err != nil {
			return nil, err
		}
		blocks[i] = b
	}
	return set, set.writeCAR(blocks)
}

// makeStar writes a CAR of one dag-cbor node that names many tiny raw blocks.
func makeStar(path string, leaves int) (*dataset, error) {
	set := &dataset{name: "star", path: path, blocks: leaves + 1}
	blocks := make([]dray.Block, 1, leaves+1)
	raw := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}
	rng := rand.NewChaCha8([32]byte{1})
	for range leaves {
		data := make([]byte, starSize)
		_, _ = rng.Read(data) // never fails
		b, err := dray.Hashed(raw, data)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, b)
	}
	root, err := cborBlock(qp.BuildList(basicnode.Prototype.Any, int64(leaves), func(l datamodel.ListAssembler) {
		for _, b := range blocks[1:] {
			qp.ListEntry(l, qp.Link(cidlink.Link{Cid: b.CID()}))
		}
	}))
	if err != nil {
		return nil, err
	}
	blocks[0] = root
	return set, set.writeCAR(blocks)
}

func cborBlock(n datamodel.Node, err error) (dray.Block, error) {
	if err != nil {
		return dray.Block{}, err
	}
	var b appender
	if err := dagcbor.Encode(n, &b); err != nil {
		return dray.Block{}, err
	}
	return dray.Hashed(cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: mh.SHA2_256, MhLength: 32}, b)
}

// appender is a byte slice that can be written to.
type appender []byte

// Write appends p.
func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

// writeCAR writes the blocks, the first of which is the root, and fills in what is known of them.
func (d *dataset) writeCAR(blocks []dray.Block) error {
	d.root = blocks[0].CID()
	return writeFile(d.path, func(f *os.File) error {
		w, err := carstorage.NewWritable(f, []cid.Cid{d.root}, car.WriteAsCarV1(true))
		if err != nil {
			return err
		}
		for _, b := range blocks {
			d.size += int64(b.Size())
			if err := w.Put(context.Background(), b.CID().KeyString(), b.Data()); err != nil {
				return err
			}
		}
		return w.Finalize()
	})
}

// checkFile returns an error unless the file at path has the data set's content.
func (d *dataset) checkFile(path string) error {
	if d.sum == "" {
		return sameFile(d.path, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.sum || n != d.size {
		return fmt.Errorf("%s: %d bytes with sha256 %s, want %d with %s", path, n, got, d.size, d.sum)
	}
	return nil
}

// checkCAR returns an error unless the CAR at path holds the data set's root and every block of it, unspoilt.
func (d *dataset) checkCAR(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := car.NewBlockReader(f)
	if err != nil {
		return err
	}
	if len(r.Roots) != 1 || !r.Roots[0].Equals(d.root) {
		return fmt.Errorf("%s: roots %v, want %v", path, r.Roots, d.root)
	}
	seen := cid.NewSet()
	for {
		b, err := r.Next() // checks the hash
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		seen.Add(b.Cid())
	}
	return d.checkBlocks(seen.Len())
}

func (d *dataset) checkBlocks(n int) error {
	if n != d.blocks {
		return fmt.Errorf("%s: %d blocks, want %d", d.name, n, d.blocks)
	}
	return nil
}

// sameFile returns an error unless two files have the same bytes.
func sameFile(want, got string) error {
	a, err := os.Open(want)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(got)
	if err != nil {
		return err
	}
	defer b.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return fmt.Errorf("%s differs from %s within %d bytes after %d", got, want, max(n, m), at)
		}
		at += int64(n)
		if isEnd(errA) && isEnd(errB) {
			return nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
	}
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// warm reads everything under path, so that the server finds it in the page cache.
func warm(path string) error {
	return filepath.WalkDir(path, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, struct{ io.Reader }{f})
		return err
	})
}

// usePages writes size bytes beside the destination and removes them. A virtual machine that gives free memory back to its
// host gets it back page by page, at several times the cost of the copy; who ran before would decide who pays for that.
func usePages(dir string, size int64) error {
	f, err := os.CreateTemp(dir, "pages")
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for n := int64(0); n < size && err == nil; n += int64(len(buf)) {
		_, err = f.Write(buf)
	}
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

func writeFile(path string, fill func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}
