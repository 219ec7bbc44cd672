package node

import (
	"context"
	"io"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/unixfs"
)

const (
	readAhead = 32 << 20 // bytes that a reader's session asks for beyond the place where it reads
	hintsKept = 8192     // blocks asked for ahead that are remembered; the oldest are withdrawn, which does nothing if they came
)

// File reads a file under a root while it arrives. Read, Seek and ReadAt are those of [unixfs.Reader].
type File struct {
	*unixfs.Reader
	ahead *ahead
}

// reading gets what a reader waits for before what it only asked for ahead: a read somewhere else overtakes at once.
type reading struct{ s *Session }

func (r reading) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	return r.s.get(ctx, c, max(r.s.class, exchange.High))
}

// Open returns a File for a root, which is fetched as it is read: what comes next is asked for before it is needed, in
// order. The Session should be the File's own, in exchange.InOrder; it is not closed with the File. Ctx bounds all
// reading.
func (s *Session) Open(ctx context.Context, root cid.Cid) (*File, error) {
	a := &ahead{s: s}
	r, err := unixfs.NewReader(ctx, reading{s}, root, unixfs.ReaderConfig{Ahead: a.hint, AheadBytes: readAhead})
	if err != nil {
		return nil, err
	}
	return &File{Reader: r, ahead: a}, nil
}

// Finds reports whether the Node looks for peers that have what it misses, beyond those that are connected or named.
func (n *Node) Finds() bool { return n.cfg.Finder != nil }

// Reading returns the Session as a Getter for what somebody waits for, which comes before what was only asked for
// ahead.
func (s *Session) Reading() dray.Getter { return reading{s} }

// Ahead returns a function for [unixfs.ReaderConfig].Ahead: it asks for blocks before somebody waits for them. They are
// withdrawn when the session is closed.
func (s *Session) Ahead() func([]cid.Cid) { return (&ahead{s: s}).hint }

// Close ends reading and withdraws what was asked for ahead.
func (f *File) Close() error {
	f.ahead.close()
	return f.Reader.Close()
}

var _ io.ReadSeekCloser = (*File)(nil)

// ahead wants blocks before somebody waits for them, so that they are in the store when their turn comes. Owned by loop
// beyond its construction.
type ahead struct {
	s     *Session
	want  map[cid.Cid]struct{}
	order []cid.Cid // oldest first
}

// hint is called by the reader with the blocks that come next.
func (a *ahead) hint(cids []cid.Cid) {
	n := a.s.n
	var missing []cid.Cid
	for _, c := range cids {
		if _, err := n.store.Stat(n.ctx, c); err != nil {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 || n.net == nil {
		return
	}
	n.do(func() {
		if a.want == nil {
			a.want = make(map[cid.Cid]struct{})
		}
		for _, c := range missing {
			if _, twice := a.want[c]; !twice {
				a.want[c] = struct{}{}
				a.order = append(a.order, c)
				n.engine.Want(n.now(), a.s.id, c, exchange.WantOptions{})
			}
		}
		for len(a.order) > hintsKept {
			n.engine.Cancel(n.now(), a.s.id, a.order[0])
			delete(a.want, a.order[0])
			a.order = a.order[1:]
		}
	})
}

func (a *ahead) close() {
	n := a.s.n
	n.do(func() {
		for c := range a.want {
			n.engine.Cancel(n.now(), a.s.id, c) // does nothing for what has come
		}
		a.want, a.order = nil, nil
	})
}

var _ dray.Getter = (*Session)(nil)
