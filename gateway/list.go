package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	gw "github.com/ipfs/boxo/gateway"
	boxofs "github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"

	"dray/unixfs"
)

// maxListed is how many entries a listing may have: it is made in memory, and a page with more is of no use.
const maxListed = 50_000

var tooMany = gw.NewErrorStatusCode(fmt.Errorf("the directory has more than %d entries, too many to list: name one in "+
	"the path, or get them all with ?format=car&dag-scope=entity", maxListed), http.StatusUnprocessableEntity)

// maxShardDepth bounds how deep a sharded directory may be: as deep as a name's hash has bits for.
const maxShardDepth = 64

// list yields the entries of a directory until stop is called, which waits for the end. Names that no file can have are
// left out: they would lead elsewhere.
func (q *request) list(dir cid.Cid) (entries <-chan boxofs.LinkResult, stop func() error) {
	ctx, cancel := context.WithCancel(q.ctx)
	out := make(chan boxofs.LinkResult) // whoever lists waits for whoever reads
	var wg sync.WaitGroup
	send := func(r boxofs.LinkResult) error {
		select {
		case out <- r:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	wg.Go(func() {
		defer close(out)
		left := maxListed
		err := q.eachEntry(ctx, dir, 0, func(l unixfs.Link) error {
			if unixfs.CheckName(l.Name) != nil {
				return nil
			}
			if left--; left < 0 {
				return tooMany
			}
			return send(boxofs.LinkResult{Link: &format.Link{Name: l.Name, Size: uint64(max(l.Tsize, 0)), Cid: l.CID}})
		})
		if err != nil && ctx.Err() == nil {
			_ = send(boxofs.LinkResult{Err: toBoxo(err)})
		}
	})
	return out, func() error {
		cancel()
		wg.Wait()
		return nil
	}
}

var errShape = errors.New("a sharded directory holds something else, or is too deep")

// eachEntry calls use with the entries of a directory, whether it is sharded or not.
func (q *request) eachEntry(ctx context.Context, dir cid.Cid, depth int, use func(unixfs.Link) error) error {
	n, err := q.node(ctx, dir)
	if err != nil {
		return err
	}
	if n.Kind != unixfs.Shard && (depth > 0 || n.Kind != unixfs.Directory) || depth > maxShardDepth {
		return fmt.Errorf("%w: %w", unixfs.ErrInvalid, errShape)
	}
	if n.Kind == unixfs.Shard {
		var below []cid.Cid
		for _, l := range n.Links {
			if l.Name == "" {
				below = append(below, l.CID)
			}
		}
		if q.g.parts != nil && len(below) > 1 && !q.local(ctx, below[0]) {
			q.ahead(below)
		}
	}
	for _, l := range n.Links {
		if n.Kind == unixfs.Shard && l.Name == "" {
			err = q.eachEntry(ctx, l.CID, depth+1, use)
		} else {
			err = use(l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// local reports whether a block is here and may be served.
func (q *request) local(ctx context.Context, c cid.Cid) bool {
	_, _, err := partsOf{q}.GetPart(ctx, c, nil, 0)
	return err == nil
}
