package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/origin"
	"dray/unixfs"
)

// Warmed is one object that was brought here.
type Warmed struct {
	// Name is an origin's name, a slash and a path.
	Name string `json:"name"`
	// Bytes is how long it is.
	Bytes int64 `json:"bytes"`
	// Here says that nothing had to be fetched.
	Here bool `json:"here"`
}

// ErrTarget means that something to be warmed is of no origin.
var ErrTarget = errors.New("of no origin")

// Targets yields the names of the objects that a target means, each an origin's name, a slash and a path as in a URL.
// A target is such a name; a URL below that of an origin; s3://BUCKET/KEY; or a CID, with a path or without. One of a
// bucket that ends in a slash, or names nothing but the bucket, means all keys that begin so. The error wraps
// [ErrTarget] or says what is wrong with the origin.
func (e *Edge) Targets(ctx context.Context, target string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		g, path, err := e.locate(target)
		if err != nil {
			yield("", err)
			return
		}
		v := g.servers[0]
		if v.bucket == nil || path != "" && !strings.HasSuffix(path, "/") {
			yield(g.name+"/"+path, nil)
			return
		}
		prefix, err := url.PathUnescape(path)
		if err != nil {
			yield("", fmt.Errorf("%w: %w", ErrTarget, err))
			return
		}
		for x, err := range v.bucket.list(ctx, prefix) {
			name := ""
			if err == nil {
				name = g.name + "/" + (&url.URL{Path: x.key}).EscapedPath()
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// locate finds the origin that a target is of, and the path there.
func (e *Edge) locate(target string) (*group, string, error) {
	if name, path, ok := strings.Cut(target, "/"); ok && e.groups[name] != nil {
		return e.groups[name], path, nil
	}
	if g := e.groups[target]; g != nil {
		return g, "", nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.groups)) {
		g := e.groups[name]
		for _, v := range g.servers {
			if path, ok := v.below(target); ok {
				return g, path, nil
			}
		}
		if g.blocks != nil {
			if c, _, err := unixfs.SplitPath(target); err == nil && c.Defined() {
				return g, strings.TrimPrefix(strings.TrimPrefix(target, "ipfs://"), "/ipfs/"), nil
			}
		}
	}
	return nil, "", fmt.Errorf("%w: %q is none of the origins %s, nor below their URLs; "+
		"[[edge.origin]] in config.toml names origins", ErrTarget, clip(target), strings.Join(e.Names(), ", "))
}

// below returns the path of a URL below this source.
func (v *server) below(target string) (string, bool) {
	u, err := url.Parse(target)
	if err != nil || u.Scheme == "" {
		return "", false
	}
	if v.bucket != nil && u.Scheme == "s3" {
		prefix := strings.Trim(v.bucket.Prefix, "/")
		if prefix != "" {
			prefix += "/"
		}
		rest, ok := strings.CutPrefix(strings.TrimPrefix(u.EscapedPath(), "/"), prefix)
		return rest, ok && u.Host == v.bucket.Name
	}
	if v.url == nil || !origin.Same(u, v.url) {
		return "", false
	}
	path, ok := strings.CutPrefix(u.EscapedPath(), strings.TrimSuffix(v.url.EscapedPath(), "/")+"/")
	if ok && u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	return path, ok
}

// Warm fetches what is not here of an object, named as [Edge.Targets] does. Progress, if not nil, is called with how
// many bytes have been passed, on the caller's goroutine.
func (e *Edge) Warm(ctx context.Context, name string, progress func(int64)) (Warmed, error) {
	w := Warmed{Name: name}
	origin, path, _ := strings.Cut(name, "/")
	g := e.groups[origin]
	if g == nil {
		return w, fmt.Errorf("%w: there is no origin %q", ErrTarget, clip(origin))
	}
	path, query, _ := strings.Cut(path, "?")
	if err := checkPath(path); err != nil {
		return w, fmt.Errorf("%w: %w", ErrTarget, err)
	}
	out := &meter{progress: progress}
	var err error
	if g.blocks != nil {
		w.Here, err = e.warmCID(ctx, g, path, out)
	} else {
		w.Here, err = e.warmName(ctx, g, path, query, out)
	}
	w.Bytes = out.n
	var bad *statusError
	if errors.As(err, &bad) && gone(bad.status) {
		err = fmt.Errorf("%w: %w", dray.ErrNotFound, err)
	} else if errors.As(err, &bad) && transient(bad.status) {
		err = fmt.Errorf("%w: %w", dray.ErrUnreachable, err)
	}
	return w, err
}

func (e *Edge) warmName(ctx context.Context, g *group, path, query string, out *meter) (here bool, err error) {
	for try := 0; ; try++ {
		v, err := e.find(ctx, g, path, query, want{last: -1})
		if err == nil && e.passes(v.o) {
			return false, fmt.Errorf("origin %s: %s must not be stored, says its server", g.name, path)
		}
		if err == nil {
			out.restart()
			rd := &reader{e: e, o: v.o, hit: true, patient: true}
			_, err = rd.copy(ctx, out, 0, -1)
			rd.close()
			here = rd.hit
		}
		if err == nil || !errors.Is(err, errChanged) || try == 2 {
			return here, err
		}
	}
}

func (e *Edge) warmCID(ctx context.Context, g *group, path string, out *meter) (here bool, err error) {
	root, names, err := readPath(path)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrTarget, err)
	}
	if e.cfg.Guarded(root) {
		return false, &dray.Error{Op: "warm", CID: root, Err: dray.ErrNotFound}
	}
	q := &blockReader{b: g.blocks}
	c, err := unixfs.ResolvePath(ctx, q, root, names)
	if err != nil {
		return false, err
	}
	s := unixfs.NewSweep(0, c)
	var need []cid.Cid
	for {
		need = s.Need(need, aheadBlocks-len(need))
		if len(need) == 0 {
			break
		}
		g.blocks.prefetch(need)
		x, err := q.Get(ctx, need[0])
		if err != nil {
			return false, err
		}
		need = slices.Delete(need, 0, 1)
		out.pass(int64(x.Size()))
		if err := s.Feed(x); err != nil {
			return false, err
		}
	}
	return !q.away, s.Err()
}

// meter counts what passes.
type meter struct {
	n        int64
	progress func(int64)
}

// Write implements io.Writer.
func (m *meter) Write(p []byte) (int, error) {
	m.pass(int64(len(p)))
	return len(p), nil
}

// ReadFrom takes what is here already without reading it.
func (m *meter) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if s, ok := l.R.(io.Seeker); ok {
			at, err := s.Seek(0, io.SeekCurrent)
			if err != nil {
				return 0, err
			}
			end, err := s.Seek(0, io.SeekEnd)
			if err != nil {
				return 0, err
			}
			n := min(l.N, end-at)
			l.N -= n
			m.pass(n)
			return n, nil
		}
	}
	return io.Copy(struct{ io.Writer }{m}, r)
}

func (m *meter) pass(n int64) {
	m.n += n
	if m.progress != nil {
		m.progress(m.n)
	}
}

func (m *meter) restart() { m.n = 0 }
