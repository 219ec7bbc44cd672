package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/tensor"
	"dray/transport"
	"dray/unixfs"
)

const (
	indexSuffix = ".safetensors.index.json"
	configName  = "config.json"
	maxConfig   = 4 << 20
)

// Catalog says which tensors there are under a root, or in files of this host.
type Catalog struct {
	// Root is what was looked at; undefined for files of this host.
	Root cid.Cid
	// Files are the tensor files, in natural order of their paths.
	Files []CatalogFile
	// Models are what the files make: each index of a sharded model with its files, then each file that no index names.
	Models []Model

	walk *unixfs.Walk // nil for files of this host
}

// CatalogFile is one tensor file.
type CatalogFile struct {
	// Path is where it lies under the root, with slashes; empty if it is the root.
	Path string
	// CID is its root; undefined for a file of this host.
	CID cid.Cid
	// Size is its length in bytes.
	Size int64
	// Tensors is what its header says; nil when that could not be read.
	Tensors *tensor.File
	// Err says why Tensors is nil: it wraps a [*tensor.HeaderError] or [tensor.ErrNotTensors].
	Err error

	entry int // of the walk
}

// Model is a set of tensors with different names: those of one file, or of the files that one index names.
type Model struct {
	// Path is that of the index or of the file.
	Path string
	// Files are the indexes in [Catalog.Files] of the files that are there.
	Files []int
	// Tensors are in natural order of the files, and file order within them.
	Tensors []ModelTensor
	// Sharded says that an index names the files. Absent are those it names in vain, and Missing the tensors.
	Sharded bool
	Absent  []string
	Missing []tensor.IndexEntry
	// Config is what the configuration beside it, or the header of a GGUF file, says.
	Config ModelConfig

	index int // entry of the index in the walk, if sharded
}

// ModelTensor is one tensor of a model.
type ModelTensor struct {
	tensor.Tensor
	// File is the index in [Catalog.Files] of the file that it lies in.
	File int
	// CID is that of the tensor's own subtree: of the block that stands for its bytes and no others. It is undefined when
	// the file was not cut at its borders, and for files of this host.
	CID cid.Cid
}

// TensorsConfig says where to look for tensors. Root is required.
type TensorsConfig struct {
	// Root is a tensor file, or a directory.
	Root cid.Cid
	// Peers are expected to have it, and are dialled.
	Peers []transport.Peer
	// Only says that no other peer may be asked.
	Only bool
	// Class is the urgency.
	Class exchange.Class
}

// Tensors lists the tensors under a root. It fetches the skeleton and the leaves that hold headers, as far as the store
// lacks them, and nothing else; they stay in the store. In a directory every file counts that is called like a tensor file,
// and one whose header is wrong is listed with its error; a root that is a file must be one, or the error wraps
// [tensor.ErrNotTensors] or a [*tensor.HeaderError]. It returns [dray.ErrNotFound] for a directory without tensor files.
func (n *Node) Tensors(ctx context.Context, cfg TensorsConfig) (*Catalog, error) {
	if err := dray.CheckCID(cfg.Root); err != nil {
		return nil, err
	}
	r := n.newErrand(n.newTally(nil), cfg.Root, cfg.Peers, cfg.Only, cfg.Class)
	defer r.close()
	return r.catalog(ctx, unixfs.NewWalk(cfg.Root, unixfs.WalkConfig{}))
}

// catalog walks the skeleton and reads the headers.
func (r *errand) catalog(ctx context.Context, w *unixfs.Walk) (*Catalog, error) {
	for {
		if err := r.walk(ctx, w); err != nil {
			return nil, err
		}
		c, err := r.read(ctx, w)
		var short *shortLeaf
		if !errors.As(err, &short) {
			return c, err
		}
		if err := w.Refute(short.cid); err != nil {
			return nil, err
		}
	}
}

func (r *errand) read(ctx context.Context, w *unixfs.Walk) (*Catalog, error) {
	var list []listed
	entries := w.Entries()
	for i := range entries {
		if e := &entries[i]; e.Kind == unixfs.File {
			list = append(list, listed{
				path: e.Path, name: path.Base(e.Path), size: e.Size, cid: e.CID, entry: i,
				open: func() (io.ReaderAt, func() error, error) {
					return r.open(ctx, w, e), func() error { return nil }, nil
				},
			})
		}
	}
	c, err := newCatalog(r.root, list)
	if err != nil {
		return nil, err
	}
	c.walk = w
	for i := range c.Models {
		if err := r.subtrees(ctx, c, &c.Models[i]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// LocalTensors lists the tensors in a file or directory of this host, as [Node.Tensors] does.
func LocalTensors(name string) (*Catalog, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	var list []listed
	add := func(file, at string, size int64) {
		list = append(list, listed{path: at, name: filepath.Base(file), size: size, open: func() (io.ReaderAt, func() error, error) {
			f, err := os.Open(file)
			if err != nil {
				return nil, nil, err
			}
			return f, f.Close, nil
		}})
	}
	if !info.IsDir() {
		add(name, "", info.Size())
		return newCatalog(cid.Undef, list)
	}
	err = filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at, err := filepath.Rel(name, p)
		add(p, filepath.ToSlash(at), info.Size())
		return err
	})
	if err != nil {
		return nil, err
	}
	return newCatalog(cid.Undef, list)
}

// listed is a file that may be a tensor file.
type listed struct {
	path  string
	name  string // what it is called, if anything
	size  int64
	cid   cid.Cid
	entry int
	open  func() (r io.ReaderAt, closeIt func() error, err error)
}

// with opens the file for use.
func (l *listed) with(use func(io.ReaderAt) error) error {
	r, closeIt, err := l.open()
	if err != nil {
		return err
	}
	return errors.Join(use(r), closeIt())
}

// whole reads a small file.
func (l *listed) whole(most int64) ([]byte, error) {
	if l.size > most {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d", l.path, dray.ErrTooBig, l.size, most)
	}
	b := make([]byte, l.size)
	err := l.with(func(r io.ReaderAt) error {
		_, err := r.ReadAt(b, 0)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	return b, err
}

// header reads what a tensor file says of itself, and no more of it than that takes.
func (l *listed) header() (f *tensor.File, err error) {
	err = l.with(func(r io.ReaderAt) error {
		var prefix []byte
		for {
			n, _, err := tensor.HeaderNeed(prefix, l.size)
			if errors.Is(err, tensor.ErrScattered) {
				f, err = tensor.ReadAs(tensor.NPZ, r, l.size)
				return err
			}
			if promised := tensor.FormatOf(l.name); promised != "" && errors.Is(err, tensor.ErrNotTensors) {
				f, err = tensor.ReadAs(promised, r, l.size) // which says what is wrong
				return err
			}
			if err != nil {
				return err
			}
			if n <= int64(len(prefix)) {
				f, err = tensor.Read(bytes.NewReader(prefix), l.size)
				return err
			}
			had := len(prefix)
			prefix = append(prefix, make([]byte, n-int64(had))...)
			if _, err := r.ReadAt(prefix[had:], int64(had)); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if f.Format == tensor.NPY && len(f.Tensors) == 1 {
		f.Tensors[0].Name = arrayName(l.path)
	}
	return f, nil
}

// arrayName names the array of an npy file, which has no name of its own: after the file, or as numpy does.
func arrayName(file string) string {
	if name := strings.TrimSuffix(path.Base(file), path.Ext(file)); file != "" && name != "" {
		return name
	}
	return "arr_0"
}

// newCatalog reads the headers and indexes among files.
func newCatalog(root cid.Cid, list []listed) (*Catalog, error) {
	fail := func(err error) (*Catalog, error) { return nil, &dray.Error{Op: "list tensors", CID: root, Err: err} }
	slices.SortStableFunc(list, func(a, b listed) int { return tensor.CompareNatural(a.path, b.path) })
	c := &Catalog{Root: root}
	byPath := make(map[string]*listed)
	at := make(map[string]int) // in c.Files
	for i := range list {
		l := &list[i]
		byPath[l.path] = l
		if l.path != "" && tensor.FormatOf(l.path) == "" {
			continue
		}
		f := CatalogFile{Path: l.path, CID: l.cid, Size: l.size, entry: l.entry}
		if f.Tensors, f.Err = l.header(); f.Err != nil {
			if !errors.Is(f.Err, tensor.ErrMalformed) && !errors.Is(f.Err, tensor.ErrNotTensors) || l.path == "" {
				return fail(cause(f.Err))
			}
			f.Err = &dray.Error{Op: l.path, Err: cause(f.Err)}
		}
		at[l.path] = len(c.Files)
		c.Files = append(c.Files, f)
	}
	if len(c.Files) == 0 {
		return fail(fmt.Errorf("%w: no tensor files (.safetensors, .gguf, .npy, .npz)", dray.ErrNotFound))
	}
	claimed := make(map[int]bool)
	for i := range list {
		l := &list[i]
		if !strings.HasSuffix(l.path, indexSuffix) {
			continue
		}
		m, err := c.sharded(l, at)
		if err != nil {
			return fail(fmt.Errorf("%s: %w", l.path, cause(err)))
		}
		for _, k := range m.Files {
			claimed[k] = true
		}
		c.Models = append(c.Models, m)
	}
	for i := range c.Files {
		if f := &c.Files[i]; f.Tensors != nil && !claimed[i] {
			m := Model{Path: f.Path, Files: []int{i}}
			for _, t := range f.Tensors.Tensors {
				m.Tensors = append(m.Tensors, ModelTensor{Tensor: t, File: i})
			}
			c.Models = append(c.Models, m)
		}
	}
	for i := range c.Models {
		m := &c.Models[i]
		if err := c.configure(m, byPath[path.Join(path.Dir(m.Path), configName)]); err != nil {
			return fail(err)
		}
	}
	return c, nil
}

// cause strips what a complaint says already.
func cause(err error) error {
	var e *dray.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// sharded puts the files together that an index names.
func (c *Catalog) sharded(l *listed, at map[string]int) (Model, error) {
	b, err := l.whole(tensor.MaxIndex)
	if err != nil {
		return Model{}, err
	}
	ix, err := tensor.ParseIndex(b)
	if err != nil {
		return Model{}, err
	}
	m := Model{Path: l.path, Sharded: true, index: l.entry}
	files := make(map[string]*tensor.File)
	where := make(map[string]int)
	for _, shard := range ix.Shards() {
		k, ok := at[path.Join(path.Dir(l.path), shard)]
		if !ok {
			continue
		}
		if f := c.Files[k]; f.Tensors == nil {
			return Model{}, f.Err
		}
		files[shard], where[shard] = c.Files[k].Tensors, k
		m.Files = append(m.Files, k)
	}
	merged := ix.Merge(files)
	m.Absent, m.Missing = merged.Absent, merged.Missing
	for _, t := range merged.Tensors {
		m.Tensors = append(m.Tensors, ModelTensor{Tensor: t, File: where[t.Shard]})
	}
	return m, nil
}

// subtrees finds the tensors of a model that have a block of their own. The skeleton is in the store.
func (r *errand) subtrees(ctx context.Context, c *Catalog, m *Model) error {
	byFile := make(map[int][]*ModelTensor)
	for i := range m.Tensors {
		if t := &m.Tensors[i]; t.Bytes() > 0 {
			byFile[t.File] = append(byFile[t.File], t)
		}
	}
	for k, ts := range byFile {
		e := &c.walk.Entries()[c.Files[k].entry]
		slices.SortFunc(ts, func(a, b *ModelTensor) int { return cmp.Compare(a.Begin, b.Begin) })
		s := subtree{r: r, man: c.walk.Manifest(), base: e.Offset, tensors: ts}
		if err := s.look(ctx, e.CID, tensor.Range{Begin: 0, End: e.Size}); err != nil {
			return err
		}
	}
	return nil
}

// subtree looks for blocks whose content is exactly one tensor.
type subtree struct {
	r       *errand
	man     *dray.Manifest
	base    int64 // of the file in the manifest
	tensors []*ModelTensor
}

// look looks at the block c, which holds the bytes at of the file.
func (s *subtree) look(ctx context.Context, c cid.Cid, at tensor.Range) error {
	i, _ := slices.BinarySearchFunc(s.tensors, at.Begin, func(t *ModelTensor, off int64) int {
		if t.End <= off {
			return -1
		}
		return 1
	})
	if i == len(s.tensors) || s.tensors[i].Begin >= at.End {
		return nil // no tensor
	}
	t := s.tensors[i]
	if t.Range() == at {
		t.CID = c // or below, if this block has one child only
	} else if t.Begin <= at.Begin && at.End <= t.End {
		return nil // a part of one
	}
	if k := s.man.At(s.base + at.Begin); s.man.Leaf(k) == c {
		return nil
	}
	var node unixfs.Node
	err := s.r.get(ctx, []cid.Cid{c}, func(b dray.Block) (err error) {
		node, err = unixfs.Parse(b)
		return err
	})
	if err != nil || t.CID.Defined() && t.CID == c && (len(node.Links) != 1 || len(node.Data) > 0) {
		return err
	}
	off := at.Begin + int64(len(node.Data))
	for _, l := range node.Links {
		if err := s.look(ctx, l.CID, tensor.Range{Begin: off, End: off + l.Size}); err != nil {
			return err
		}
		off += l.Size
	}
	return nil
}
