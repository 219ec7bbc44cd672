package tensor

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

// IndexName is what the index of a sharded model is called.
const IndexName = "model.safetensors.index.json"

// MaxIndex is the largest index, in bytes, that [ParseIndex] reads.
const MaxIndex = MaxHeader

// Index is the content of a sharded model's index: which tensor is in which file.
type Index struct {
	// Tensors are the tensors with their files, in the order of the index.
	Tensors []IndexEntry
	// TotalSize is metadata.total_size: the bytes of all tensors. It is -1 if the index does not say.
	TotalSize int64
	// Metadata are the other values of metadata; those that are no strings, as JSON.
	Metadata map[string]string
}

// IndexEntry says that a tensor lies in a file.
type IndexEntry struct {
	// Name is the tensor's name.
	Name string
	// Shard is the file's name, beside the index. It is a plain file name: no directory, not "." or "..".
	Shard string
}

// ParseIndex reads an index. It returns a [*HeaderError], inside a [*dray.Error], when it is malformed: among others
// when a name occurs twice, or a file is not named by a plain file name.
func ParseIndex(b []byte) (*Index, error) {
	ix, err := parseIndex(b)
	if err != nil {
		return nil, border("read index", err)
	}
	return ix, nil
}

func parseIndex(b []byte) (*Index, error) {
	s := &scanner{b: b, format: Safetensors}
	if len(b) > MaxIndex {
		return nil, s.fail(0, "index of %d bytes, more than %d", len(b), MaxIndex)
	}
	if err := s.checkUTF8(); err != nil {
		return nil, err
	}
	ix := &Index{TotalSize: -1, Metadata: make(map[string]string)}
	hasMap := false
	shards := make(map[string]string)
	err := s.object(func(key string, _ int) error {
		switch key {
		case "weight_map":
			hasMap = true
			return s.object(func(name string, at int) error {
				s.peek()
				shardAt := s.i
				shard, err := s.str()
				switch {
				case err != nil:
					return err
				case !plainName(shard):
					return s.fail(shardAt, "%s is not a plain file name", quoteShort(shard))
				case len(name) > MaxName:
					return s.fail(at, "name of %d bytes, more than %d", len(name), MaxName)
				case len(ix.Tensors) == MaxTensors:
					return s.fail(at, "more than %d tensors", MaxTensors)
				}
				if same, ok := shards[shard]; ok {
					shard = same // One string for all tensors of a shard.
				}
				shards[shard] = shard
				ix.Tensors = append(ix.Tensors, IndexEntry{Name: name, Shard: shard})
				return nil
			})
		case "metadata":
			return s.indexMetadata(ix)
		}
		_, err := s.skip(1)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	if !hasMap {
		return nil, s.fail(0, "index without a weight_map")
	}
	return ix, nil
}

func (s *scanner) indexMetadata(ix *Index) error {
	if s.peek() == 'n' {
		return s.passWord()
	}
	return s.object(func(key string, _ int) error {
		if s.peek() == '"' {
			v, err := s.str()
			ix.Metadata[key] = v
			return err
		}
		at := s.i
		v, err := s.skip(1)
		if err != nil {
			return err
		}
		if key != "total_size" {
			ix.Metadata[key] = string(v)
			return nil
		}
		// Some writers divide and so write 1.0e9.
		x, err := strconv.ParseFloat(string(v), 64)
		if n, ierr := strconv.ParseInt(string(v), 10, 64); ierr == nil && n >= 0 {
			ix.TotalSize = n
		} else if err == nil && x >= 0 && x < 1<<53 && x == math.Trunc(x) {
			ix.TotalSize = int64(x)
		} else {
			return s.fail(at, "total_size is no number of bytes")
		}
		return nil
	})
}

// plainName reports whether s can only name a file in the directory that it is looked up in.
func plainName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		if s[i] == '/' || s[i] == '\\' || s[i] == ':' || s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// Shards returns the names of the files, each once, in natural order.
func (ix *Index) Shards() []string {
	seen := make(map[string]bool)
	var names []string
	for _, e := range ix.Tensors {
		if !seen[e.Shard] {
			seen[e.Shard] = true
			names = append(names, e.Shard)
		}
	}
	slices.SortFunc(names, CompareNatural)
	return names
}

// Model is a sharded model as one: all tensors of all its files.
type Model struct {
	// Tensors are the tensors that the index names and that are where it says, in natural order of the files and file
	// order within them. Shard is set.
	Tensors []Tensor
	// Absent are the files that the index names and that were not there, in natural order.
	Absent []string
	// Missing are the tensors that the index names and that their file, which is there, does not hold. Extra are those
	// that a file holds and the index does not place there. Both are in natural order.
	Missing, Extra []IndexEntry
	// Bytes is the number of bytes of Tensors. It differs from the index's TotalSize when something is missing, or
	// when the index counts otherwise.
	Bytes int64
}

// Complete reports whether every tensor of the index was found.
func (m *Model) Complete() bool { return len(m.Absent) == 0 && len(m.Missing) == 0 }

// Merge puts the files of a sharded model together. Files are looked up by the names in the index; a nil one counts as
// absent. It always succeeds: what does not fit is listed in the Model.
func (ix *Index) Merge(files map[string]*File) *Model {
	m := &Model{}
	claimed := make(map[IndexEntry]bool, len(ix.Tensors))
	for _, e := range ix.Tensors {
		claimed[e] = false
	}
	for _, shard := range ix.Shards() {
		f := files[shard]
		if f == nil {
			m.Absent = append(m.Absent, shard)
			continue
		}
		for _, t := range f.Tensors {
			e := IndexEntry{Name: t.Name, Shard: shard}
			if _, ok := claimed[e]; !ok {
				m.Extra = append(m.Extra, e)
				continue
			}
			claimed[e] = true
			t.Shard = shard
			m.Tensors = append(m.Tensors, t)
			m.Bytes += t.Bytes()
		}
	}
	for _, e := range ix.Tensors {
		if !claimed[e] && files[e.Shard] != nil {
			m.Missing = append(m.Missing, e)
		}
	}
	byName := func(a, b IndexEntry) int {
		return cmp.Or(CompareNatural(a.Shard, b.Shard), CompareNatural(a.Name, b.Name))
	}
	slices.SortFunc(m.Missing, byName)
	slices.SortFunc(m.Extra, byName)
	return m
}
