package main

import (
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/spf13/cobra"

	"dray"
	"dray/exchange"
	"dray/store/disk"
	"dray/unixfs"
)

var cmdStat = &cobra.Command{
	Use:   "stat " + targetHelp,
	Short: "describe what a CID names, and how much of it is here",
	Long: `Stat describes a file, directory or other root: its kind, size and how many of its bytes the home holds. The blocks above
the content are fetched if they are not here; the content is not.

With --json it prints {"cid":…,"kind":…,"codec":…,"hash":…,"bytes":…,"files":…,"leaves":…,"held_bytes":…,"held_leaves":…}.
For a root that is no file or directory, leaves counts its blocks.`,
	Example: "  dray stat bafybei…",
	Args:    arguments(1, 1, targetHelp),
}

func newStat(e *env) *cobra.Command {
	var o sourceOptions
	c := bind(e, cmdStat, func(ctx context.Context, e *env, args []string) error { return runStat(ctx, e, o, args) })
	o.flags(c)
	planeFlag(e, c)
	return c
}

type statRequest struct {
	targetRequest
	Timeout time.Duration `json:"timeout,omitempty"`
}

// statResult describes what a CID names.
type statResult struct {
	CID        string `json:"cid"`
	Kind       string `json:"kind"`
	Codec      string `json:"codec"`
	Hash       string `json:"hash"`
	Bytes      int64  `json:"bytes"`
	Files      int    `json:"files"`
	Leaves     int    `json:"leaves"`
	HeldBytes  int64  `json:"held_bytes"`
	HeldLeaves int    `json:"held_leaves"`
}

var taskStat = task[statRequest, nothing, statResult]{name: "stat", network: true, run: statTarget}

func runStat(ctx context.Context, e *env, o sourceOptions, args []string) error {
	t, err := o.target(args[0])
	if err != nil {
		return err
	}
	r, err := taskStat.with(ctx, e, statRequest{t.request(), o.timeout}, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	e.printf("cid     %s", r.CID)
	e.printf("kind    %s (%s, %s)", r.Kind, r.Codec, r.Hash)
	e.printf("size    %s (%d bytes) in %s", size(r.Bytes), r.Bytes, plural(int64(r.Leaves), "block"))
	if r.Files > 0 {
		e.printf("files   %d", r.Files)
	}
	e.printf("here    %s in %s", size(r.HeldBytes), plural(int64(r.HeldLeaves), "block"))
	return nil
}

func statTarget(ctx context.Context, h *house, q statRequest, _ pipes[nothing]) (r statResult, err error) {
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return r, err
	}
	ctx, a, err := h.ask(ctx, t, exchange.InOrder)
	if err != nil {
		return r, err
	}
	defer a.close()
	defer func() { err = a.explain(ctx, err) }()
	c, err := a.resolve(ctx, t.names)
	if err != nil {
		return r, err
	}
	r.CID = c.String()
	r.Codec, r.Hash = codecName(c.Prefix().Codec), mh.Codes[c.Prefix().MhType]
	w, err := skeleton(ctx, a.session, c)
	if errors.Is(err, unixfs.ErrNotUnixFS) {
		return r, h.statOther(ctx, c, &r)
	}
	if err != nil {
		return r, err
	}
	return r, h.statFiles(ctx, w, &r)
}

func (h *house) statFiles(ctx context.Context, w *unixfs.Walk, r *statResult) error {
	entries, m := w.Entries(), w.Manifest()
	r.Kind, r.Bytes, r.Leaves = fileKind(entries[0].Kind).String(), m.Size(), m.Len()
	for _, e := range entries {
		if fileKind(e.Kind) == unixfs.File {
			r.Files++
		}
	}
	for i := range m.Len() {
		if _, err := h.store.Stat(ctx, m.Leaf(i)); err == nil {
			_, n := m.Extent(i)
			r.HeldLeaves, r.HeldBytes = r.HeldLeaves+1, r.HeldBytes+n
		} else if !errors.Is(err, dray.ErrNotFound) && !errors.Is(err, dray.ErrChanged) {
			return err
		}
	}
	return nil
}

// statOther counts what is here of a root that is no file.
func (h *house) statOther(ctx context.Context, c cid.Cid, r *statResult) error {
	r.Kind = "other"
	return h.reachable(ctx, c, make(disk.Marks), func(_ cid.Cid, size int64) error {
		r.Leaves, r.HeldLeaves = r.Leaves+1, r.HeldLeaves+1
		r.Bytes, r.HeldBytes = r.Bytes+size, r.HeldBytes+size
		return nil
	})
}

var codecs = map[string]uint64{
	"raw": cid.Raw, "dag-pb": cid.DagProtobuf, "dag-cbor": cid.DagCBOR, "dag-json": cid.DagJSON,
}

func codecName(code uint64) string {
	for name, c := range codecs {
		if c == code {
			return name
		}
	}
	return "unknown"
}
