package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/hub"
	"dray/node"
	"dray/unixfs"
)

// How a file of a repository is read while it arrives:
//
//  1. It is read from the store, for as long as that has what comes next.
//  2. From the first block on that is missing it is read through a session, which asks for what comes next a little ahead, and
//     for what is waited for before all else: so a range at the end comes without the rest.
//  3. Who reads a file of some size from its beginning will want it all. Then it is brought into the store beside the reading,
//     as by any other get, once however many readers there are. What has come is served to peers, and stays when they are gone.
//  4. What was read to its end is recorded as a root that was got once, so that it counts to the quota and goes when that is
//     passed, what was used last at last.

const (
	bringFrom   = 4 << 20          // bytes from which on a file is brought as a whole
	mostBrought = 16               // files at once; more are only read through sessions
	lingering   = 10 * time.Second // how long a file is brought on when nobody reads it any more
)

// Open implements [hub.Swarm].
func (r *repos) Open(ctx context.Context, under, file cid.Cid, size int64, from []dray.PeerID) (hub.Content, error) {
	c := &follower{ctx: ctx, r: r, under: under, file: file, size: size, from: from}
	f, err := unixfs.NewReader(ctx, r.h.store, file, unixfs.ReaderConfig{})
	switch {
	case err == nil:
		c.local = f
		err = c.check(f.Size())
	case isGone(err):
		err = c.goOn()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	r.h.used(ctx, file)
	return c, nil
}

// follower reads a file that may be on its way. It belongs to one goroutine.
type follower struct {
	ctx         context.Context
	r           *repos
	under, file cid.Cid
	size        int64
	from        []dray.PeerID

	local  *unixfs.Reader // until the first block that is missing
	at     int64
	begun  bool // reading has begun, at from0
	from0  int64
	ask    *asking
	asking context.Context
	remote *node.File
	bring  *bringing
}

var _ io.WriterTo = (*follower)(nil)

// check says whether the file is as long as the commit says.
func (c *follower) check(size int64) error {
	if size != c.size {
		return &dray.Error{Op: "read", CID: c.file, Err: errors.New("it is not as long as its repository says")}
	}
	return nil
}

// goOn turns from the store to the peers.
func (c *follower) goOn() error {
	if c.local != nil {
		c.local.Close()
		c.local = nil
	}
	ctx, a, err := c.r.h.ask(c.ctx, target{root: c.under, peers: c.r.reachable(c.from)}, exchange.InOrder)
	if err != nil {
		return err
	}
	c.ask, c.asking = a, ctx
	if c.remote, err = a.session.Open(ctx, c.file); err != nil {
		return a.explain(ctx, err)
	}
	if err := c.check(c.remote.Size()); err != nil {
		return err
	}
	_, err = c.remote.Seek(c.at, io.SeekStart)
	return err
}

// Seek says where to read next.
func (c *follower) Seek(offset int64, whence int) (int64, error) {
	var err error
	if c.remote != nil {
		c.at, err = c.remote.Seek(offset, whence)
	} else {
		c.at, err = c.local.Seek(offset, whence)
	}
	return c.at, err
}

// Read reads on, and waits for what is on its way.
func (c *follower) Read(p []byte) (n int, err error) {
	c.begin()
	if c.remote == nil {
		if n, err = c.local.Read(p); !isGone(err) {
			c.at += int64(n)
			return n, c.end(err)
		}
		if err := c.turn(); err != nil {
			return 0, err
		}
	}
	n, err = c.remote.Read(p)
	c.at += int64(n)
	return n, c.end(err)
}

// WriteTo hands w the rest, leaf by leaf, without copying it.
func (c *follower) WriteTo(w io.Writer) (total int64, err error) {
	c.begin()
	if c.remote == nil {
		n, err := c.local.WriteTo(w)
		c.at, total = c.at+n, n
		if !isGone(err) {
			return total, c.end(err)
		}
		if err := c.turn(); err != nil {
			return total, err
		}
	}
	n, err := c.remote.WriteTo(w)
	c.at, total = c.at+n, total+n
	return total, c.end(err)
}

// begin notes where reading begins, and has the file brought if it is to be read from there on.
func (c *follower) begin() {
	if c.begun {
		return
	}
	c.begun, c.from0 = true, c.at
	if c.remote != nil {
		c.follow()
	}
}

// turn goes on among peers, and has the file brought.
func (c *follower) turn() error {
	if err := c.goOn(); err != nil {
		return err
	}
	c.follow()
	return nil
}

func (c *follower) follow() {
	if c.from0 == 0 && c.size >= bringFrom && c.bring == nil {
		c.bring = c.r.bring(c.ctx, c.file, c.from)
	}
}

// end explains an error, and notes at the end of the file that it is here.
func (c *follower) end(err error) error {
	if c.at == c.size && c.from0 == 0 && c.remote != nil {
		c.r.brought(c.file, c.size)
	}
	if err != nil && !errors.Is(err, io.EOF) && c.ask != nil {
		return c.ask.explain(c.asking, err)
	}
	return err
}

// Close ends the reading.
func (c *follower) Close() error {
	if c.local != nil {
		c.local.Close()
	}
	if c.remote != nil {
		c.remote.Close()
	}
	if c.ask != nil {
		c.ask.close()
		c.ask = nil
	}
	if c.bring != nil {
		c.r.leave(c.bring)
		c.bring = nil
	}
	return nil
}

// bringing is a file that is brought into the store.
type bringing struct {
	file    cid.Cid
	readers int // guarded by repos.mu
	cancel  context.CancelFunc
	idle    *time.Timer // ends it, once nobody reads
}

// bring has a file brought on behalf of a reader, or joins those who have. It returns nil when that many are under way already.
func (r *repos) bring(reader context.Context, file cid.Cid, from []dray.PeerID) *bringing {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.fetch[file]; b != nil {
		b.readers++
		if b.idle != nil {
			b.idle.Stop()
			b.idle = nil
		}
		return b
	}
	if len(r.fetch) >= mostBrought || r.ctx == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(r.ctx) // others may read it when the first has left
	origin := originOf(reader, "hub")
	b := &bringing{file: file, readers: 1, cancel: cancel}
	r.fetch[file] = b
	r.wg.Go(func() {
		defer cancel()
		defer r.h.grow(file)()
		p, err := r.h.node.Fetch(ctx, node.FetchConfig{
			Root: file, Peers: r.reachable(from), Order: exchange.InOrder, Origin: origin,
		})
		r.mu.Lock()
		delete(r.fetch, file)
		r.mu.Unlock()
		if err != nil {
			r.h.env.log().Debug("a file of a repository was not brought whole", "root", file, "err", err)
			return
		}
		r.brought(file, p.Total)
	})
	return b
}

// leave says that a reader needs a file no more.
func (r *repos) leave(b *bringing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.readers--; b.readers == 0 {
		b.idle = time.AfterFunc(lingering, b.cancel)
	}
}
