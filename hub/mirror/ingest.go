package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"dray"
	"dray/hub"
	"dray/tensor"
)

const (
	mostHeader  = 32 << 20        // bytes of a header of tensors that are looked at before cutting
	mostGrowth  = 4               // how much larger pieces become
	openAhead   = 8 << 20         // before a piece ends, the next is asked for
	mostBeside  = 4               // readings at once beside the one from the beginning
	swarmWithin = 2 * time.Second // a leaf that peers should have
)

// lead reads the file from the upstream, as far as nobody here has it.
func (w *flow) lead(ctx context.Context) (err error) {
	select {
	case w.m.leads <- struct{}{}:
		defer func() { <-w.m.leads }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	l := &leader{w: w, ctx: ctx, piece: w.m.cfg.Piece, buf: make([]byte, profile.ChunkSize)}
	// An upstream that brings nothing for so long may do better for another node.
	silence := time.AfterFunc(w.m.cfg.Patience, func() { cancel(errSilent) })
	defer func() {
		silence.Stop()
		if errors.Is(context.Cause(ctx), errSilent) {
			err = fmt.Errorf("%w: %w for %v", hub.ErrUpstream, errSilent, w.m.cfg.Patience)
		}
		cancel(nil)
		l.wg.Wait()
		l.close()
		w.change(func() { w.claims, w.reach = nil, 0 })
	}()
	w.change(func() { w.stage = stageLeading })
	if watch := w.m.cfg.Watch; watch != nil {
		if w.arrival = watch(w.repo.Name+"/"+w.file.Path, w.file.Size); w.arrival != nil {
			defer func() { w.arrival.End(err) }()
		}
	}
	if err := l.plan(); err != nil {
		return err
	}
	l.wg.Go(l.hear)
	d := newDigesting(ctx, w.file, w.m.cfg.Blocks)
	for i := range w.claims.cuts {
		e, content, err := l.leaf(i)
		if err != nil {
			return err
		}
		if err := d.leaf(e, content); err != nil {
			return err
		}
		w.advance(e.end)
		silence.Reset(w.m.cfg.Patience)
	}
	silence.Stop()
	return w.complete(d)
}

// errSilent means that the upstream brings nothing.
var errSilent = errors.New("nothing came")

// leader is one attempt to lead a flow. But for what hear does beside, it belongs to the flow's goroutine.
type leader struct {
	w     *flow
	ctx   context.Context
	wg    sync.WaitGroup
	piece int64 // how much to ask for next
	buf   []byte

	session Session // for what peers should have; nil until it is needed
	dry     bool    // they did not have it

	now, next *reading
}

// reading is a piece that fills the cuts from i to before j.
type reading struct {
	piece
	head   io.Reader // bytes before the piece's, which were read already
	i, j   int
	opened chan error // has one slot, and is nil when nobody has begun
}

// plan finds out where to cut, which may take the first bytes of the file.
func (l *leader) plan() error {
	w := l.w
	prefix := l.recalled()
	if prefix == nil && len(w.table.run)+len(w.table.ahead) > 0 {
		if err := w.clear(); err != nil {
			return err
		}
	}
	first := &reading{piece: piece{w: w, ctx: l.ctx, end: min(w.file.Size, l.piece)}}
	fresh := prefix == nil
	if fresh {
		l.now = first
	}
	for {
		n, _, err := tensor.HeaderNeed(prefix, w.file.Size)
		if err != nil || n > mostHeader || n <= int64(len(prefix)) {
			break
		}
		if !fresh {
			// What is known of the beginning does not suffice to tell.
			if err := w.clear(); err != nil {
				return err
			}
			return l.plan()
		}
		first.end = max(first.end, n)
		grown := make([]byte, n)
		copy(grown, prefix)
		if _, err := io.ReadFull(&first.piece, grown[len(prefix):]); err != nil {
			return err
		}
		prefix = grown
	}
	return l.cut(prefix)
}

// recalled returns the header as far as its leaves are known and can be had, or nil when nothing is known.
func (l *leader) recalled() (prefix []byte) {
	w := l.w
	for {
		n, _, err := tensor.HeaderNeed(prefix, w.file.Size)
		if len(prefix) > 0 && (err != nil || n <= int64(len(prefix)) || n > mostHeader) {
			return prefix
		}
		w.mu.Lock()
		e, ok := w.table.find(int64(len(prefix)))
		w.mu.Unlock()
		if !ok || e.begin != int64(len(prefix)) {
			return prefix
		}
		b, err := l.held(e)
		if err != nil {
			return prefix
		}
		prefix = append(prefix, b...)
	}
}

// cut makes the plan, and checks what is known against it.
func (l *leader) cut(prefix []byte) error {
	w := l.w
	cuts := cutsOf(w.file.Size, prefix)
	c := newClaims(cuts)
	w.change(func() {
		known := append(append([]entry(nil), w.table.run...), w.table.ahead...)
		for _, e := range known {
			if i := c.at(e.begin); cuts[i].begin == e.begin && cuts[i].end == e.end && cuts[i].edge == e.edge {
				c.fill(i)
			} else {
				w.table.drop(e.begin)
			}
		}
		if r := l.now; r != nil && len(cuts) > 0 {
			// What was asked for ends where it happened to end, and may be all if the upstream knows no ranges.
			asked := r.end
			if r.body != nil {
				asked = max(asked, r.body.end)
			}
			r.j = c.claim(0, cuts[c.at(min(asked, w.file.Size)-1)].end)
			r.end = cuts[r.j-1].end
			r.head = bytes.NewReader(prefix)
			w.reach = r.end
		}
		w.claims = c
	})
	return nil
}

// cutsOf says where to cut a file of which so much is known: like `dray add` does, at the borders of tensors if there are any.
func cutsOf(size int64, prefix []byte) (cuts []cut) {
	if n, _, err := tensor.HeaderNeed(prefix, size); err == nil && n <= int64(len(prefix)) {
		if f, err := tensor.Read(bytes.NewReader(prefix), size); err == nil {
			for c := range f.Chunks(profile.ChunkSize) {
				e := edgeInside
				if c.First {
					e |= edgeFirst
				}
				if c.Last {
					e |= edgeLast
				}
				cuts = append(cuts, cut{c.Begin, c.End, e})
			}
			return cuts
		}
	}
	for at := int64(0); at < size; at += profile.ChunkSize {
		cuts = append(cuts, cut{begin: at, end: min(at+profile.ChunkSize, size)})
	}
	return cuts
}

// leaf returns a cut's leaf and content, which is valid until the next call.
func (l *leader) leaf(i int) (entry, []byte, error) {
	w := l.w
	for {
		w.mu.Lock()
		state, changed := w.claims.state[i], w.changed
		e, _ := w.table.find(w.claims.cuts[i].begin)
		ours := l.now != nil && i < l.now.j || l.next != nil && i == l.next.i
		w.mu.Unlock()
		switch {
		case state == cutFilled:
			content, err := l.held(e)
			if err == nil {
				return e, content, nil
			}
			if l.ctx.Err() != nil {
				return e, nil, context.Cause(l.ctx)
			}
			w.change(func() {
				w.claims.lose(i)
				w.table.drop(e.begin)
			})
		case state == cutClaimed && !ours:
			select {
			case <-changed: // it is being read beside
			case <-l.ctx.Done():
				return e, nil, context.Cause(l.ctx)
			}
		default:
			return l.read(i)
		}
	}
}

// held returns the content of a known leaf: from the store, or from peers as long as they have any.
func (l *leader) held(e entry) ([]byte, error) {
	b, err := l.w.m.cfg.Blocks.Local(l.ctx, e.leaf)
	if err == nil || !errors.Is(err, dray.ErrNotFound) {
		return b.Data(), err
	}
	if l.dry {
		return nil, err
	}
	if l.session == nil {
		l.session = l.w.m.cfg.Swarm.Session(false)
	}
	ctx, cancel := context.WithTimeout(l.ctx, swarmWithin)
	defer cancel()
	b, err = l.session.Get(ctx, e.leaf)
	l.dry = err != nil
	return b.Data(), err
}

// read fills a cut from the upstream.
func (l *leader) read(i int) (entry, []byte, error) {
	if r := l.now; r == nil || i >= r.j {
		l.turn(i)
	}
	r := l.now
	e, err := r.fill(i, l.buf)
	if err != nil {
		return e, nil, err
	}
	l.lookAhead()
	return e, l.buf[:e.end-e.begin], nil
}

// turn makes the reading that fills cut i the current one. One that was opened ahead begins there.
func (l *leader) turn(i int) {
	if l.now != nil {
		l.now.close()
	}
	l.now, l.next = l.next, nil
	if l.now == nil {
		l.now = l.begin(i)
		return
	}
	<-l.now.opened // if that failed, reading tries again
}

// begin claims a piece from cut i on.
func (l *leader) begin(i int) *reading {
	w := l.w
	r := &reading{piece: piece{w: w, ctx: l.ctx}, i: i}
	w.change(func() {
		c := w.claims
		r.j = c.claim(i, l.piece)
		r.pos, r.end = c.cuts[i].begin, c.cuts[r.j-1].end
		w.reach = max(w.reach, r.end)
	})
	l.piece = min(2*l.piece, mostGrowth*w.m.cfg.Piece)
	return r
}

// lookAhead asks for the next piece when the current one is about to end, so that there is no pause between them.
func (l *leader) lookAhead() {
	w, r := l.w, l.now
	w.mu.Lock()
	free := r.j < len(w.claims.cuts) && w.claims.state[r.j] == cutFree
	w.mu.Unlock()
	if l.next != nil || !free || r.end-r.pos > openAhead {
		return
	}
	n := l.begin(r.j)
	n.opened = make(chan error, 1)
	l.wg.Go(func() { n.opened <- n.open() })
	l.next = n
}

// fill reads a cut, puts the leaf into the store and says so.
func (r *reading) fill(i int, buf []byte) (entry, error) {
	w := r.w
	w.mu.Lock()
	c := w.claims.cuts[i]
	w.mu.Unlock()
	data := buf[:c.end-c.begin]
	n := 0
	if r.head != nil {
		var err error
		if n, err = io.ReadFull(r.head, data); err == io.EOF || err == io.ErrUnexpectedEOF {
			r.head = nil
		}
	}
	if _, err := io.ReadFull(&r.piece, data[n:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: it ended at byte %d of %d", hub.ErrUpstream, r.pos, w.file.Size)
		}
		return entry{}, err
	}
	b, err := dray.Hashed(leafPrefix, data)
	if err != nil {
		return entry{}, err
	}
	if err := w.m.cfg.Blocks.Put(r.ctx, b); err != nil {
		return entry{}, err
	}
	e := entry{c.begin, c.end, c.edge, b.CID()}
	w.change(func() {
		if w.table.add(e) {
			w.claims.fill(i)
			err = w.note.add(lineOf(e))
		} else {
			err = fmt.Errorf("mirror: the leaf at %d fits nowhere", e.begin)
		}
	})
	return e, err
}

// close ends the leader's readings.
func (l *leader) close() {
	for _, r := range []*reading{l.now, l.next} {
		if r != nil {
			r.close()
		}
	}
	if l.session != nil {
		_ = l.session.Close()
	}
}

// hear reads beside what somebody needs who is far ahead.
func (l *leader) hear() {
	for {
		select {
		case n := <-l.w.needs:
			l.beside(n)
		case <-l.ctx.Done():
			return
		}
	}
}

// beside begins to read what is needed, unless it comes soon anyway or enough is being read.
func (l *leader) beside(n needLine) {
	w := l.w
	r := &reading{piece: piece{w: w, ctx: l.ctx}}
	begun := false
	w.change(func() {
		c := w.claims
		r.i = c.at(n.Need)
		if r.i == len(c.cuts) || c.state[r.i] != cutFree || c.cuts[r.i].begin < w.reach+w.m.nearBy || w.beside >= mostBeside {
			return
		}
		r.j = c.claim(r.i, min(max(n.Want, 1), w.m.cfg.Piece))
		r.pos, r.end = c.cuts[r.i].begin, c.cuts[r.j-1].end
		w.beside++
		begun = true
	})
	if !begun {
		return
	}
	l.wg.Go(func() {
		buf := make([]byte, profile.ChunkSize)
		var err error
		for i := r.i; i < r.j && err == nil; i++ {
			_, err = r.fill(i, buf)
		}
		r.close()
		w.change(func() {
			w.claims.release(r.i, r.j)
			w.beside--
		})
		if err != nil && l.ctx.Err() == nil {
			w.m.log.Info("a part of a file did not come before the rest", "repo", w.repo.Name, "path", w.file.Path, "error", err)
		}
	})
}
