package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	"dray/node"
	"dray/store/disk"
	"dray/unixfs"
)

var cmdCar = &cobra.Command{
	Use:   "car",
	Short: "export and import CAR archives",
	Long:  `Car moves whole DAGs in and out of the home as CAR archives, the format that other IPFS programs read and write.`,
}

func newCar(e *env) *cobra.Command {
	c := bind(e, cmdCar, nil)
	group(c, newCarExport(e), newCarImport(e))
	return c
}

var cmdCarExport = &cobra.Command{
	Use:   "export " + targetHelp,
	Short: "write everything under a root as a CAR",
	Long: `Export writes everything under a root to standard output, or to the file that -o names, as a CAR of version 1. Blocks that
are not in the home are fetched first.

With --json and -o it prints {"cid":…,"blocks":…,"bytes":…}.`,
	Example: `  dray car export bafybei… -o photos.car`,
	Args:    arguments(1, 1, targetHelp),
}

type carExportOptions struct {
	sourceOptions
	output string
	force  bool
}

type carRequest struct {
	targetRequest
	Timeout time.Duration `json:"timeout,omitempty"`
}

type carExportResult struct {
	CID    string `json:"cid"`
	Blocks int64  `json:"blocks"`
	Bytes  int64  `json:"bytes"`
}

type carImportResult struct {
	Roots  []string `json:"roots"`
	Blocks int64    `json:"blocks"`
	Bytes  int64    `json:"bytes"`
}

var (
	taskCarExport = task[carRequest, nothing, carExportResult]{name: "car/export", network: true, run: exportCAR}
	taskCarImport = task[carImportRequest, nothing, carImportResult]{name: "car/import", run: importCAR}
)

func newCarExport(e *env) *cobra.Command {
	var o carExportOptions
	c := bind(e, cmdCarExport, func(ctx context.Context, e *env, args []string) error { return runCarExport(ctx, e, o, args) })
	o.flags(c)
	planeFlag(e, c)
	c.Flags().StringVarP(&o.output, "output", "o", "", "the file to write")
	c.Flags().BoolVarP(&o.force, "force", "f", false, "overwrite it if it is there")
	return c
}

func runCarExport(ctx context.Context, e *env, o carExportOptions, args []string) (err error) {
	t, err := o.target(args[0])
	if err != nil {
		return err
	}
	q := carRequest{t.request(), o.timeout}
	if o.output == "" || o.output == "-" {
		_, err := taskCarExport.with(ctx, e, q, pipes[nothing]{out: e.stdout})
		return err
	}
	if _, err := os.Lstat(o.output); err == nil && !o.force {
		return occupied(o.output)
	}
	part := o.output + partSuffix
	file, err := os.Create(part)
	if err != nil {
		return err
	}
	defer os.Remove(part) // does nothing once it has moved
	r, err := taskCarExport.with(ctx, e, q, pipes[nothing]{out: file})
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(part, o.output); err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	e.tell("%s, %s", plural(r.Blocks, "block"), size(r.Bytes))
	e.printf("%s", o.output)
	return nil
}

func exportCAR(ctx context.Context, h *house, q carRequest, p pipes[nothing]) (r carExportResult, err error) {
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return r, err
	}
	if len(t.names) > 0 {
		if t.root, err = h.lookup(ctx, t); err != nil {
			return r, err
		}
	}
	n, offline, done, err := h.reach(t.peers)
	if err != nil {
		return r, err
	}
	defer done()
	r.CID = t.root.String()
	err = n.FetchDAG(ctx, node.DAGConfig{Root: t.root, Peers: t.peers, Origin: node.Origin{Who: "car export"}, Each: func(b dray.Block) error {
		r.Blocks, r.Bytes = r.Blocks+1, r.Bytes+int64(b.Size())
		return nil
	}})
	if err != nil {
		if offline {
			err = nobody(t.root, t.peers, err)
		}
		return r, err
	}
	w := bufio.NewWriterSize(p.out, 1<<20)
	return r, errors.Join(unixfs.WriteCAR(ctx, w, []cid.Cid{t.root}, h.store), w.Flush())
}

var cmdCarImport = &cobra.Command{
	Use:   "import FILE",
	Short: "store the blocks of a CAR",
	Long: `Import stores every block of a CAR, of version 1 or 2, after checking it, and prints the roots. "-" is standard input. It
stops at the first bad block; what came before is kept.

With --json it prints {"roots":[…],"blocks":…,"bytes":…}.`,
	Example: "  dray car import photos.car",
	Args:    arguments(1, 1, "a FILE"),
}

type carImportRequest struct {
	// Name is the archive's, for listings.
	Name string `json:"name,omitempty"`
}

func newCarImport(e *env) *cobra.Command { return bind(e, cmdCarImport, runCarImport) }

func runCarImport(ctx context.Context, e *env, args []string) error {
	in, q := e.stdin, carImportRequest{}
	if args[0] != "-" {
		file, err := os.Open(args[0])
		if errors.Is(err, os.ErrNotExist) {
			return usagef("there is no %q; give the path of a CAR, or - for standard input", args[0])
		}
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
		if q.Name, err = filepath.Abs(args[0]); err != nil {
			return err
		}
	}
	r, err := taskCarImport.with(ctx, e, q, pipes[nothing]{in: in})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	e.tell("%s, %s", plural(r.Blocks, "block"), size(r.Bytes))
	for _, root := range r.Roots {
		e.printf("%s", root)
	}
	return nil
}

const importBatch = 4 << 20 // bytes put at a time

func importCAR(ctx context.Context, h *house, q carImportRequest, p pipes[nothing]) (carImportResult, error) {
	release := h.store.Hold() // until the roots are recorded
	defer release()
	var (
		batch []dray.Block
		held  int
	)
	flush := func() error {
		err := h.node.Put(ctx, batch...)
		batch, held = batch[:0], 0
		return err
	}
	stats, err := unixfs.ReadCAR(ctx, bufio.NewReaderSize(p.in, 1<<20), func(b dray.Block) error {
		batch, held = append(batch, b), held+b.Size()
		if held < importBatch {
			return nil
		}
		return flush()
	})
	if err = errors.Join(err, flush()); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unixfs.ErrInvalid) {
		err = errors.Join(dray.ErrCorrupt, err)
	}
	r := carImportResult{Roots: []string{}, Blocks: stats.Blocks, Bytes: stats.Bytes}
	if err != nil {
		return r, err
	}
	for _, c := range stats.Roots {
		r.Roots = append(r.Roots, c.String())
		root := disk.Root{CID: c, Path: q.Name, Size: stats.Bytes, Leaves: stats.Blocks, Mode: disk.Seed}
		if w, err := skeleton(ctx, h.store, c); err == nil {
			root.Size, root.Leaves = w.Manifest().Size(), int64(w.Manifest().Len())
		}
		if err := h.remember(ctx, root); err != nil {
			return r, err
		}
	}
	return r, h.store.Sync(ctx)
}
