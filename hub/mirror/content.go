package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/hub"
	"dray/unixfs"
)

const (
	firstNeed = 1 << 20  // bytes that are asked for beside, when a reader begins far ahead
	mostNeed  = 32 << 20 // as it goes on there
	glance    = 1 << 20  // who reads no more than that looks at a header
)

// content reads a file that is arriving. Who reads all of it gets the last leaf when the whole is known to be right. Who reads a
// little of its end, long before the rest is here, gets that at once.
type content struct {
	ctx    context.Context
	w      *flow
	at     int64
	from   int64 // where it began to read
	want   int64 // how much to ask for beside next
	begin  int64 // where leaf begins
	leaf   []byte
	handed bool // bytes of the flow's epoch
	taken  int64
	wants  bool // it has said that it wants more than a glance
	epoch  int
	closed bool
}

func newContent(ctx context.Context, w *flow) *content {
	return &content{ctx: ctx, w: w, want: firstNeed}
}

// Seek implements io.Seeker. It waits for nothing.
func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.at
	case io.SeekEnd:
		offset += c.w.file.Size
	}
	if offset < 0 {
		return 0, errors.New("mirror: seek before the beginning")
	}
	if offset != c.at {
		c.want, c.from = firstNeed, offset
	}
	c.at = offset
	return offset, nil
}

// Read implements io.Reader. The error wraps [hub.ErrUpstream] when the file does not come after all.
func (c *content) Read(p []byte) (int, error) {
	if c.closed {
		return 0, dray.ErrClosed
	}
	if c.at >= c.w.file.Size {
		// A file without bytes is only known to be right at the end.
		if c.w.file.Size == 0 {
			return 0, c.wait(0)
		}
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if c.at < c.begin || c.at >= c.begin+int64(len(c.leaf)) {
		if err := c.wait(c.at); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.leaf[c.at-c.begin:])
	c.at += int64(n)
	c.handed = true
	if c.taken += int64(n); !c.wants && c.taken > glance {
		c.wants = true
		c.w.change(func() { c.w.wanted = true })
	}
	return n, nil
}

// wait waits for the leaf that holds the byte at offset, and makes it the current one. It only looks at what is in the store:
// who brings the flow gets what is missing, and knows what to do when nobody has it.
func (c *content) wait(offset int64) error {
	w := c.w
	for {
		w.mu.Lock()
		e, known := w.table.find(offset)
		right, done, failed, changed := w.right, w.done, w.err, w.changed
		soon := offset < w.table.front()+w.m.nearBy
		epoch := w.epoch
		all := c.from == 0 || offset-c.from > w.m.endSoon || w.front+w.m.endSoon >= w.file.Size
		w.mu.Unlock()
		if c.handed && epoch != c.epoch {
			return fmt.Errorf("%w: what came of %q was wrong, and is fetched again; ask again", hub.ErrUpstream, w.file.Path)
		}
		c.epoch = epoch
		switch {
		case done && failed != nil:
			return failed
		case right && w.file.Size == 0:
			return io.EOF
		case known && (right || !all || e.end < w.file.Size):
			b, err := w.m.cfg.Blocks.Local(c.ctx, e.leaf)
			if err == nil {
				return c.take(e, b)
			}
			if right || !errors.Is(err, dray.ErrNotFound) {
				return fmt.Errorf("%w: %w", hub.ErrUpstream, err)
			}
		case !known && !soon:
			w.need(needLine{Need: offset, Want: c.want})
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
}

func (c *content) take(e entry, b dray.Block) error {
	if int64(b.Size()) != e.end-e.begin {
		return fmt.Errorf("%w: %w", hub.ErrUpstream, errWrong)
	}
	c.begin, c.leaf = e.begin, b.Data()
	c.want = min(2*c.want, mostNeed)
	return nil
}

// Close implements io.Closer.
func (c *content) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	c.w.release()
	return nil
}

// openKept reads content that is all here; what was lost of it meanwhile comes from peers.
func (m *Mirror) openKept(ctx context.Context, root cid.Cid) (hub.Content, error) {
	m.cfg.Blocks.Used(ctx, root)
	k := &kept{session: m.cfg.Swarm.Session(false)}
	var err error
	if k.Reader, err = unixfs.NewReader(ctx, k.session, root, unixfs.ReaderConfig{}); err != nil {
		return nil, fmt.Errorf("%w: %w", hub.ErrUpstream, errors.Join(err, k.session.Close()))
	}
	return k, nil
}

// kept is a Reader with what it reads from.
type kept struct {
	*unixfs.Reader
	session Session
}

func (k *kept) Close() error { return errors.Join(k.Reader.Close(), k.session.Close()) }
