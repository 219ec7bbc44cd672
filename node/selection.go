package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"dray"
	"dray/tensor"
)

// Selection says which tensors of a model are wanted, and what of each. The zero Selection is all of every tensor.
type Selection struct {
	// Patterns are matched against the tensors' names, in the grammar of [tensor.ParsePattern]. Each must match one. If
	// empty, all tensors are selected.
	Patterns []string
	// TP, if World is not zero, selects this rank's share of each tensor. If its KVHeads is zero, the model's configuration
	// is asked.
	TP tensor.TP
	// Rules say how tensors are split; they come before those of the architecture.
	Rules []tensor.TPRule
	// Architecture names the rules to use. If empty, the model's configuration does.
	Architecture string
	// Sparse keeps every tensor at its place in a file as long as the original, with holes for what is not selected.
	// Otherwise the selected tensors make a new safetensors file.
	Sparse bool
	// Order is the order in which tensors are wanted. If empty, that of the file.
	Order tensor.OrderKind
}

// Pick returns the model that a selection is made from: the only one; the only sharded one; or all files together, if their
// tensors have different names. Otherwise the error lists the models.
func (c *Catalog) Pick() (*Model, error) {
	fail := func(err error) (*Model, error) { return nil, &dray.Error{Op: "select", CID: c.Root, Err: err} }
	for i := range c.Files {
		if err := c.Files[i].Err; err != nil {
			return fail(err)
		}
	}
	var only *Model
	sharded, seen := 0, make(map[string]bool)
	for i := range c.Models {
		if m := &c.Models[i]; m.Sharded {
			sharded++
			only = m
		}
	}
	switch {
	case len(c.Models) == 1:
		return &c.Models[0], nil
	case sharded == 1:
		return only, nil
	case sharded == 0:
		all := &Model{}
		for i := range c.Models {
			m := &c.Models[i]
			all.Files = append(all.Files, m.Files...)
			for _, t := range m.Tensors {
				if seen[t.Name] {
					return fail(fmt.Errorf("tensor %q is in more than one file; name one of %s after the CID", t.Name, c.modelPaths()))
				}
				seen[t.Name] = true
				all.Tensors = append(all.Tensors, t)
			}
			if i == 0 || all.Config == m.Config {
				all.Config = m.Config
			} else {
				all.Config = ModelConfig{}
			}
		}
		return all, nil
	}
	return fail(fmt.Errorf("there are several models; name the directory of one of %s after the CID", c.modelPaths()))
}

func (c *Catalog) modelPaths() string {
	const most = 8
	var names []string
	for _, m := range c.Models[:min(len(c.Models), most)] {
		names = append(names, m.Path)
	}
	if len(c.Models) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// Names returns the tensors' names in the order of Tensors.
func (m *Model) Names() []string {
	names := make([]string, len(m.Tensors))
	for i := range m.Tensors {
		names[i] = m.Tensors[i].Name
	}
	return names
}

// chosen is one tensor of a selection.
type chosen struct {
	*ModelTensor
	slices []tensor.Slice
}

// choose returns the tensors that a selection names, in the order of the model. A pattern that matches nothing is a
// [*tensor.NoMatchError].
func (m *Model) choose(s *Selection) ([]chosen, error) {
	if len(m.Tensors) == 0 && len(m.Absent) > 0 {
		return nil, fmt.Errorf("%w: %s names %s, which is not there", dray.ErrNotFound, m.Path, strings.Join(m.Absent, ", "))
	}
	picked, err := tensor.Select(m.Names(), s.Patterns)
	if err != nil {
		return nil, err
	}
	if err := m.lacking(s); err != nil {
		return nil, err
	}
	list := make([]chosen, len(picked))
	for i, k := range picked {
		list[i].ModelTensor = &m.Tensors[k]
	}
	if s.TP.World == 0 {
		return list, nil
	}
	tp, arch := s.TP, cmp.Or(s.Architecture, m.Config.Architecture)
	if tp.KVHeads == 0 {
		tp.KVHeads = m.Config.KVHeads
	}
	table, err := tensor.NewTPTable(slices.Concat(s.Rules, tensor.TPRules(arch)))
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].slices, err = tp.Slice(list[i].Name, list[i].Shape, table); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// lacking returns an error when a pattern names tensors of files that are not there.
func (m *Model) lacking(s *Selection) error {
	var names []string
	for _, e := range m.Missing {
		names = append(names, e.Name)
	}
	for _, text := range s.Patterns {
		p, err := tensor.ParsePattern(text)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(names, p.Match); i >= 0 {
			return fmt.Errorf("%w: tensor %q, which %s promises in %s", dray.ErrNotFound, names[i], m.Path, m.Missing[i].Shard)
		}
	}
	if len(m.Absent) > 0 && len(s.Patterns) == 0 {
		return fmt.Errorf("%w: %s names %s, which is not there", dray.ErrNotFound, m.Path, strings.Join(m.Absent, ", "))
	}
	return nil
}

// plan turns a selection into a placement: what goes to the path dest. A sharded model in its sparse form is a directory
// there, everything else a file.
func (c *Catalog) plan(m *Model, s *Selection, dest string) (*placement, error) {
	list, err := m.choose(s)
	if err != nil {
		return nil, err
	}
	order, err := tensor.Order(namesOf(list), s.Order)
	if err != nil {
		return nil, err
	}
	p := &placement{man: c.walk.Manifest()}
	if s.Sparse {
		err = c.planSparse(p, m, list, order, dest)
	} else {
		err = c.planSubset(p, list, order, dest)
	}
	if err != nil {
		return nil, err
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	for i := range p.outs {
		p.outs[i].purpose = purpose(c, list, s.Sparse, &p.outs[i])
	}
	return p, nil
}

func namesOf(list []chosen) []string {
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	return names
}

// planSubset plans one new file.
func (c *Catalog) planSubset(p *placement, list []chosen, order []int, dest string) error {
	pieces := make([]tensor.Piece, len(list))
	for i := range list {
		pieces[i] = tensor.Piece{Tensor: &list[i].Tensor, Slices: list[i].slices}
	}
	sub, err := tensor.NewSubset(pieces, c.metadata(list))
	if errors.Is(err, tensor.ErrForeign) {
		return fmt.Errorf("%w; leave it out, or keep the file's own format with --sparse", err)
	}
	if err != nil {
		return err
	}
	p.outs = []outFile{{path: dest, size: sub.Size, head: sub.Header}}
	at := make([]int, len(list)) // where piece i is in p.placed
	for _, part := range sub.Parts {
		at[part.Piece] = len(p.placed)
		p.placed = append(p.placed, placed{
			file: c.Files[list[part.Piece].File].Path, name: list[part.Piece].Name, dtype: list[part.Piece].DType,
			base: c.base(list[part.Piece].File), runs: part.Runs, to: part.Offset,
		})
	}
	for _, i := range order {
		p.order = append(p.order, at[i])
	}
	return nil
}

// planSparse plans files as long as the originals.
func (c *Catalog) planSparse(p *placement, m *Model, list []chosen, order []int, dest string) error {
	outs := make(map[int]int) // by index in c.Files
	for _, k := range m.Files {
		f := &c.Files[k]
		outs[k] = len(p.outs)
		o := outFile{path: dest, size: f.Size, sparse: true}
		if m.Sharded || len(m.Files) > 1 {
			o.path = filepath.Join(dest, filepath.FromSlash(f.Path))
			if m.Sharded {
				o.path = filepath.Join(dest, path.Base(f.Path))
			}
		}
		p.outs = append(p.outs, o)
		// What describes the file comes first: its beginning, and in an npz what stands between the arrays.
		for s := range f.Tensors.Sections() {
			if s.Kind == tensor.Header || s.Kind == tensor.Other && f.Tensors.Format == tensor.NPZ {
				if err := p.addRange(c.base(k), tensor.Range{Begin: s.Begin, End: s.End}, outs[k]); err != nil {
					return err
				}
			}
		}
	}
	if m.Sharded {
		e := &c.walk.Entries()[m.index]
		p.outs = append(p.outs, outFile{path: filepath.Join(dest, path.Base(m.Path)), size: e.Size, sparse: true})
		if err := p.addRange(e.Offset, tensor.Range{Begin: 0, End: e.Size}, len(p.outs)-1); err != nil {
			return err
		}
	}
	first := len(p.placed)
	for i := range list {
		runs, err := list[i].Runs(list[i].slices...)
		if err != nil {
			return err
		}
		p.placed = append(p.placed, placed{
			file: c.Files[list[i].File].Path, name: list[i].Name, dtype: list[i].DType,
			base: c.base(list[i].File), runs: runs, out: outs[list[i].File],
		})
	}
	for _, i := range order {
		p.order = append(p.order, first+i)
	}
	return nil
}

// base returns where a file begins in the manifest.
func (c *Catalog) base(file int) int64 { return c.walk.Entries()[c.Files[file].entry].Offset }

// metadata returns what the headers of the files say beside the tensors. Where they differ, the first file's word counts.
func (c *Catalog) metadata(list []chosen) map[string]string {
	all := make(map[string]string)
	seen := make(map[int]bool)
	for i := range list {
		k := list[i].File
		if f := c.Files[k].Tensors; !seen[k] && f.Format == tensor.Safetensors {
			for key, v := range f.Metadata {
				if _, have := all[key]; !have {
					all[key] = v
				}
			}
		}
		seen[k] = true
	}
	return all
}

// purpose names what a file is made from, so that only an attempt at the same continues it.
func purpose(c *Catalog, list []chosen, sparse bool, o *outFile) string {
	h := sha256.New()
	say := json.NewEncoder(h)
	_ = say.Encode([]any{c.Root.String(), sparse, filepath.Base(o.path), o.size, o.head}) // a hash takes everything
	for i := range list {
		_ = say.Encode([]any{list[i].Name, c.Files[list[i].File].CID.String(), list[i].Begin, list[i].End, list[i].slices})
	}
	return "tensors " + hex.EncodeToString(h.Sum(nil))
}
