package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dray"

	"github.com/ipfs/go-cid"
)

// Put implements [dray.Store]. A block that a growing file expects is written to its place there, even if the store holds
// it elsewhere. The caller's bytes are not kept.
func (s *Store) Put(ctx context.Context, blocks ...dray.Block) error {
	if err := s.enter(); err != nil {
		return fail("put", cid.Undef, err)
	}
	defer s.leave()
	for _, b := range blocks {
		if err := s.put(ctx, b); err != nil {
			return fail("put", b.CID(), err)
		}
	}
	return nil
}

func (s *Store) put(ctx context.Context, b dray.Block) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if b.Size() > dray.MaxBlockSize {
		return fmt.Errorf("%w: %d bytes, at most %d", dray.ErrTooBig, b.Size(), dray.MaxBlockSize)
	}
	mh, err := hashOf(b.CID())
	if err != nil {
		return err
	}
	if _, ok := identity(mh); ok {
		return nil // there is nothing to keep
	}
	if err := s.admit(ctx); err != nil {
		return err
	}
	s.touch(mh)
	if done, err := s.putLeaf(mh, b.CID(), b.Data()); done || err != nil {
		return err
	}
	held, err := s.holds(mh, b.Data())
	if held || err != nil {
		return err
	}
	return s.putLoose(strings.Clone(mh), b.Data())
}

// admit waits while more small blocks are pending than memory is given to, and refuses when commits fail while much is
// pending, so that neither grows without bound.
func (s *Store) admit(ctx context.Context) error {
	for {
		s.mu.Lock()
		bytes, small, err := s.pending.bytes, s.pending.small, s.commitErr
		if err == nil && small < smallRoom {
			s.mu.Unlock()
			return nil
		}
		if err != nil {
			s.mu.Unlock()
			if bytes >= 4*s.cfg.SyncBytes || small >= smallRoom || errors.Is(err, dray.ErrNoSpace) {
				// Perhaps there is room again; the committer finds out.
				return s.sync(ctx)
			}
			return nil
		}
		if s.closed {
			s.mu.Unlock()
			return dray.ErrClosed
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		s.wake()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// holds reports whether the store has a block, whose bytes are data, in a place that can be relied on.
func (s *Store) holds(mh string, data []byte) (bool, error) {
	var room [2]place
	places, err := s.find(room[:0], mh)
	if err != nil {
		return false, err
	}
	for i := range places {
		p := &places[i]
		if p.kind != inFile {
			return true, nil
		}
		f, now, err := s.look(p.id)
		if err != nil {
			continue
		}
		sure := f.growing() || f.sure(now, p.off)
		s.files.release(f)
		if sure || s.sameBytes(p, data) {
			return true, nil
		}
	}
	return false, nil
}

// putLoose keeps a block that is no leaf of a growing file. It keeps mh.
func (s *Store) putLoose(mh string, data []byte) error {
	s.written.Add(int64(len(data)))
	if len(data) <= s.cfg.SmallBlock {
		s.journal.mu.Lock()
		defer s.journal.mu.Unlock()
		if err := s.journal.appendLocked(mh, data); err != nil {
			return err
		}
		s.addPending(mh, place{kind: inIndex, data: append(make([]byte, 0, len(data)), data...)})
		return nil
	}
	p, fl, err := s.appendSegment(mh, data)
	if err != nil {
		return err
	}
	s.addPending(mh, p)
	s.landed(fl)
	return nil
}

// Delete implements [dray.Store]. Bytes that lie in a user's file stay there; only their reference is forgotten. A
// deletion survives the loss of power once synced.
func (s *Store) Delete(ctx context.Context, c cid.Cid) error {
	if err := s.enter(); err != nil {
		return fail("delete", c, err)
	}
	defer s.leave()
	if ctx.Err() != nil {
		return fail("delete", c, context.Cause(ctx))
	}
	mh, err := hashOf(c)
	if err == nil {
		err = s.drop(mh, nil, func(*place) bool { return true })
	}
	return fail("delete", c, err)
}
