package main

import (
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	"dray/exchange"
	"dray/store/disk"
	"dray/unixfs"
)

var cmdLs = &cobra.Command{
	Use:   "ls [" + targetHelp + "]",
	Short: "list what the home holds, or a directory",
	Long: `Ls lists the roots of the home: what was added, got or imported, and what each is kept for (see ` + "`dray seed`" + `). With an argument it lists the directory under that CID
or ticket, one level deep; blocks that are not in the home are fetched.

With --json each line is {"cid":…,"path":…,"bytes":…,"leaves":…,"profile":…,"added":…,"mode":…,"pinned":…,"access":…} for a root,
where access is "open" or says who may have it, and
{"name":…,"kind":…,"bytes":…,"cid":…} for a directory's entry, where bytes is -1 if it is not known.`,
	Example: `  dray ls
  dray ls bafybei…/photos`,
	Args: arguments(0, 1, targetHelp),
}

func newLs(e *env) *cobra.Command {
	var o sourceOptions
	c := bind(e, cmdLs, func(ctx context.Context, e *env, args []string) error { return runLs(ctx, e, o, args) })
	o.flags(c)
	planeFlag(e, c)
	return c
}

// listedRoot is one root of a home.
type listedRoot struct {
	CID     string    `json:"cid"`
	Path    string    `json:"path"`
	Bytes   int64     `json:"bytes"`
	Leaves  int64     `json:"leaves"`
	Profile string    `json:"profile"`
	Added   time.Time `json:"added"`
	// Mode is what it is kept for.
	Mode   disk.Mode `json:"mode"`
	Pinned bool      `json:"pinned"`
	// Access says who may have it: "open", "members", "private, 2 tickets" and so on.
	Access string `json:"access"`
}

// listedEntry is one entry of a directory.
type listedEntry struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Bytes int64  `json:"bytes"`
	CID   string `json:"cid"`
}

type listRequest struct {
	targetRequest
	Timeout time.Duration `json:"timeout,omitempty"`
}

var (
	taskRoots = task[nothing, listedRoot, nothing]{name: "roots", run: listRoots}
	taskList  = task[listRequest, listedEntry, nothing]{name: "ls", network: true, run: listDir}
)

func runLs(ctx context.Context, e *env, o sourceOptions, args []string) error {
	var failed error
	if len(args) == 0 {
		_, err := taskRoots.with(ctx, e, nothing{}, pipes[listedRoot]{note: func(r listedRoot) {
			if e.json {
				failed = errors.Join(failed, e.emit(r))
				return
			}
			e.printf("%s  %8s  %-4s%s  %s%s", r.CID, size(r.Bytes), r.Mode, r.pin(), r.Path, r.access())
		}})
		return errors.Join(err, failed)
	}
	t, err := o.target(args[0])
	if err != nil {
		return err
	}
	_, err = taskList.with(ctx, e, listRequest{t.request(), o.timeout}, pipes[listedEntry]{note: func(x listedEntry) {
		if e.json {
			failed = errors.Join(failed, e.emit(x))
			return
		}
		e.printf("%s  %8s  %s", x.CID, x.size(), x.label())
	}})
	return errors.Join(err, failed)
}

func (r *listedRoot) pin() string {
	if r.Pinned {
		return " pinned"
	}
	return ""
}

func (r *listedRoot) access() string {
	if r.Access == "open" {
		return ""
	}
	return "  (" + r.Access + ")"
}

func (x *listedEntry) size() string {
	if x.Bytes < 0 {
		return "-"
	}
	return size(x.Bytes)
}

func (x *listedEntry) label() string {
	switch x.Kind {
	case unixfs.Directory.String():
		return x.Name + "/"
	case unixfs.Symlink.String():
		return x.Name + "@"
	}
	return x.Name
}

func listRoots(ctx context.Context, h *house, _ nothing, p pipes[listedRoot]) (nothing, error) {
	roots, err := h.store.Roots(ctx)
	for _, r := range roots {
		rule, closed := h.door.rule(r.CID)
		p.note(listedRoot{
			CID: r.CID.String(), Path: r.Path, Bytes: r.Size, Leaves: r.Leaves, Profile: r.Profile, Added: r.Added,
			Mode: r.Kept(), Pinned: r.Pinned,
			Access: accessOf(rule, closed),
		})
	}
	return nothing{}, err
}

func listDir(ctx context.Context, h *house, q listRequest, p pipes[listedEntry]) (_ nothing, err error) {
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return nothing{}, err
	}
	ctx, a, err := h.ask(ctx, t, exchange.InOrder)
	if err != nil {
		return nothing{}, err
	}
	defer a.close()
	defer func() { err = a.explain(ctx, err) }()
	c, err := a.resolve(ctx, t.names)
	if err != nil {
		return nothing{}, err
	}
	links, err := dirLinks(ctx, a.session, c, 0)
	if err != nil {
		return nothing{}, err
	}
	for len(links) > 0 {
		k := min(len(links), skeletonAhead)
		if err := describe(ctx, a.session, links[:k], p.note); err != nil {
			return nothing{}, err
		}
		links = links[k:]
	}
	return nothing{}, nil
}

const maxShardDepth = 64 // more levels than a hash of eight bytes has

// dirLinks returns the entries of a directory, however many blocks it is in.
func dirLinks(ctx context.Context, blocks dray.Getter, c cid.Cid, depth int) ([]unixfs.Link, error) {
	b, err := blocks.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	n, err := unixfs.Parse(b)
	if err != nil {
		return nil, err
	}
	switch {
	case n.Kind == unixfs.Directory:
		return n.Links, nil
	case n.Kind == unixfs.Shard && depth < maxShardDepth:
		var all []unixfs.Link
		for _, l := range n.Links {
			if l.Name != "" {
				all = append(all, l)
				continue
			}
			below, err := dirLinks(ctx, blocks, l.CID, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, below...)
		}
		return all, nil
	}
	return nil, usagef("%v is a %v, not a directory; `dray stat` describes it", c, fileKind(n.Kind))
}

// fileKind is a kind as people see it: a raw leaf is a file, and so on.
func fileKind(k unixfs.Kind) unixfs.Kind {
	switch k {
	case unixfs.Raw:
		return unixfs.File
	case unixfs.Shard:
		return unixfs.Directory
	}
	return k
}

// describe says what some entries are, looking at their first blocks where the link does not tell.
func describe(ctx context.Context, blocks dray.Getter, links []unixfs.Link, note func(listedEntry)) error {
	var need []cid.Cid
	for _, l := range links {
		if l.CID.Prefix().Codec != cid.Raw {
			need = append(need, l.CID)
		}
	}
	got, err := getAll(ctx, blocks, need)
	if err != nil {
		return err
	}
	for _, l := range links {
		x := listedEntry{Name: l.Name, CID: l.CID.String(), Kind: unixfs.File.String(), Bytes: l.Tsize}
		if l.CID.Prefix().Codec != cid.Raw {
			n, err := unixfs.Parse(got[0])
			got = got[1:]
			switch {
			case err != nil:
				x.Kind, x.Bytes = "other", -1
			default:
				x.Kind, x.Bytes = fileKind(n.Kind).String(), n.Size
				if x.Kind == unixfs.Directory.String() {
					x.Bytes = -1
				}
			}
		}
		note(x)
	}
	return nil
}
