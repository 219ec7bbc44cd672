package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dray/hub"
)

const mostBreaks = 6 // an answer may break off so often without a byte in between

// piece reads a stretch of a file from the upstream, and asks for the rest of it when an answer breaks off. It is used by one
// goroutine at a time.
type piece struct {
	w        *flow
	ctx      context.Context
	pos, end int64 // what is still to be read
	body     *ranged
	breaks   int
}

// open asks for what is to be read, at the address that the upstream named for this file before, if that still answers.
func (p *piece) open() error {
	w := p.w
	w.mu.Lock()
	at, check := w.direct, w.check
	w.mu.Unlock()
	home := w.m.cfg.Upstream.resolve(w.repo, w.commit, w.file.Path)
	if at == "" {
		at = home
	}
	body, err := w.m.cfg.Upstream.ranged(p.ctx, at, w.file.Size, p.pos, p.end, check)
	if err != nil && at != home && p.ctx.Err() == nil { // addresses that are given out expire
		body, err = w.m.cfg.Upstream.ranged(p.ctx, home, w.file.Size, p.pos, p.end, "")
	}
	if err != nil {
		return sentinel(err, hub.ErrEntryNotFound)
	}
	w.mu.Lock()
	w.direct, w.check = body.at, body.validator
	w.mu.Unlock()
	p.body = body
	return nil
}

// Read implements io.Reader.
func (p *piece) Read(b []byte) (int, error) {
	for {
		if p.pos >= p.end {
			return 0, io.EOF
		}
		if p.body == nil {
			if err := p.open(); err != nil {
				return 0, err
			}
		}
		n, err := p.body.Read(b[:min(int64(len(b)), p.end-p.pos)])
		p.pos += int64(n)
		if n > 0 {
			p.breaks = 0
			if p.w.arrival != nil {
				p.w.arrival.Came(int64(n))
			}
		}
		if err != nil {
			if p.pos < p.body.end {
				p.breaks++
			}
			p.close()
		}
		switch {
		case n > 0:
			return n, nil
		case err == nil || errors.Is(err, io.EOF) && p.breaks <= mostBreaks:
			continue
		case p.ctx.Err() != nil:
			return 0, context.Cause(p.ctx)
		case p.breaks > mostBreaks:
			return 0, fmt.Errorf("%w: it breaks off at byte %d again and again: %w", hub.ErrUpstream, p.pos, err)
		}
	}
}

// close ends the answer.
func (p *piece) close() {
	if p.body != nil {
		_ = p.body.Close()
		p.body = nil
	}
}
