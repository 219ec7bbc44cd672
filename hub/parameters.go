package hub

import (
	"context"
	"io"
	"math"
	"path"
	"strings"

	"dray/names"
	"dray/tensor"
)

// How many parameters a model has, as its safetensors files say. Only their headers are read.

const (
	mostShards = 128     // files that are looked into
	headerRead = 1 << 16 // bytes that are read at a time, at least
)

// parameters counts the elements of all tensors by their types; nil when that is not known in time.
func (s *Server) parameters(ctx context.Context, c *names.Commit) map[string]any {
	key := "parameters of " + commitKey(c)
	if known, ok := s.cards.get(key); ok {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, cardTime)
	defer cancel()
	counts := make(map[string]int64)
	var total int64
	files := 0
	for _, f := range c.Files {
		if path.Ext(f.Path) != ".safetensors" || strings.Contains(f.Path, "/") {
			continue // what lies deeper is usually the same once more, in another form
		}
		if files++; files > mostShards || !s.count(ctx, c, f, counts) {
			return nil
		}
	}
	for _, n := range counts {
		if total += n; total < 0 {
			return nil
		}
	}
	var found map[string]any
	if files > 0 {
		found = map[string]any{"parameters": counts, "total": total}
	}
	s.cards.put(key, found)
	return found
}

// count adds what one file holds, and reports whether it could be read.
func (s *Server) count(ctx context.Context, c *names.Commit, f names.File, counts map[string]int64) bool {
	r, err := s.cfg.Library.Open(ctx, c, f)
	if err != nil {
		return false
	}
	defer r.Close()
	file, err := tensor.ReadAs(tensor.Safetensors, &window{r: r, size: f.Size}, f.Size)
	if err != nil {
		return false
	}
	for i := range file.Tensors {
		t := &file.Tensors[i]
		n := t.Elements()
		if n < 0 || counts[t.DType.Name] > math.MaxInt64-n {
			return false
		}
		counts[t.DType.Name] += n
	}
	return true
}

// window is a Content as an [io.ReaderAt] for one goroutine. It reads a little more than it is asked for, and remembers that.
type window struct {
	r    Content
	size int64
	from int64
	data []byte
}

func (w *window) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= w.size {
		return 0, io.EOF
	}
	end := min(off+int64(len(p)), w.size)
	if off < w.from || end > w.from+int64(len(w.data)) {
		if _, err := w.r.Seek(off, io.SeekStart); err != nil {
			return 0, err
		}
		w.from, w.data = off, make([]byte, min(max(end-off, headerRead), w.size-off))
		if n, err := io.ReadFull(w.r, w.data); err != nil {
			w.data = w.data[:n]
			return 0, err
		}
	}
	n := copy(p, w.data[off-w.from:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
