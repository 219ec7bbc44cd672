package main

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dray"
	rules "dray/access"
	"dray/names"
	"dray/store/disk"
	"dray/unixfs"
)

// Publishing: what was added becomes a commit of a repository, under a name that is signed by the home's key.

// repoOptions are the flags with which something is published.
type repoOptions struct {
	name, revision string
	dataset        bool
}

func (o *repoOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.name, "repo", "", "publish it as this repository, such as org/name, for clients of the Hugging Face Hub; see docs/hub.md")
	f.BoolVar(&o.dataset, "dataset", false, "with --repo, it is a dataset rather than a model")
	f.StringVar(&o.revision, "revision", "", "with --repo, the branch or tag (default main)")
}

// request reads the flags; nil without --repo.
func (o *repoOptions) request() (*publishRequest, error) {
	if o.name == "" {
		if o.dataset || o.revision != "" {
			return nil, usagef("--dataset and --revision say more of --repo; give that, too")
		}
		return nil, nil
	}
	repo, err := names.ParseRepo(o.name)
	if err != nil {
		return nil, usageError{err}
	}
	if o.dataset {
		repo.Kind = names.Dataset
	}
	q := &publishRequest{Kind: repo.Kind, Name: repo.Name, Revision: o.revision}
	if q.Revision == "" {
		q.Revision = "main"
	}
	if err := names.CheckRevision(q.Revision); err != nil {
		return nil, usageError{err}
	}
	if names.IsCommit(q.Revision) {
		return nil, usagef("--revision %s looks like a commit's id, which a branch or tag cannot", q.Revision)
	}
	return q, nil
}

// publishRequest asks for a root of this home to become a commit.
type publishRequest struct {
	Root     string     `json:"root"`
	Path     string     `json:"path"` // where it lies, absolute
	Kind     names.Kind `json:"kind"`
	Name     string     `json:"name"`
	Revision string     `json:"revision"`
	// Copied says that the store has the bytes, and the files at Path need not be looked at.
	Copied bool `json:"copied,omitempty"`
}

func (q *publishRequest) repo() names.Repo { return names.Repo{Kind: q.Kind, Name: q.Name} }

// publishResult is what was published.
type publishResult struct {
	Repo     string `json:"repo"`
	Revision string `json:"revision"`
	Commit   string `json:"commit"`
	CID      string `json:"cid"` // of the commit's first block
	Files    int    `json:"files"`
	Key      string `json:"key"`
	// Hashed is how many bytes had to be read for it.
	Hashed int64 `json:"hashed_bytes"`
	// Unchanged says that this was the revision's commit already.
	Unchanged bool `json:"unchanged"`
}

var taskPublish = task[publishRequest, addNote, publishResult]{name: "publish", network: true, run: publish}

// publish is the task: make a commit of a root, and sign that it is the revision's.
func publish(ctx context.Context, h *house, q publishRequest, p pipes[addNote]) (publishResult, error) {
	root, err := parseCID(q.Root)
	if err != nil {
		return publishResult{}, err
	}
	if err := errors.Join(q.repo().Check(), names.CheckRevision(q.Revision)); err != nil {
		return publishResult{}, usageError{err}
	}
	release := h.store.Hold()
	defer release()
	h.repos.publishing.Lock() // one after the other, so that each sees the one before
	defer h.repos.publishing.Unlock()
	old := h.repos.own(q.repo(), q.Revision)
	d := digesting{h: h, q: &q, known: h.repos.digests(ctx, old), note: p.note}
	c, err := d.commit(ctx, root)
	if err != nil {
		return publishResult{}, err
	}
	result := publishResult{
		Repo: q.repo().String(), Revision: q.Revision, Commit: c.ID, Files: len(c.Files), Hashed: d.done.Load(),
		Key: h.repos.self().String(),
	}
	rule, closed := h.door.rule(root)
	if old != nil && old.Commit == c.ID && old.Dir == c.Dir && old.Private == closed {
		result.CID, result.Unchanged = old.Block.String(), true
		return result, nil
	}
	r, err := h.commit(ctx, c, root, rule, closed)
	if err != nil {
		return result, err
	}
	r.Revision = q.Revision
	if err := h.repos.sign(r); err != nil {
		return result, err
	}
	result.CID = r.Block.String()
	return result, nil
}

// commit puts a commit's blocks into the store, closed to whom its root is closed, and returns what is to be signed.
func (h *house) commit(ctx context.Context, c *names.Commit, root cid.Cid, rule rules.Rule, closed bool) (*names.Record, error) {
	blocks, err := c.Blocks()
	if err != nil {
		return nil, err
	}
	head := blocks[len(blocks)-1].CID()
	if closed {
		err := h.door.edit(ctx, func(b *rules.Book) error {
			if rule.Members {
				b.AllowMembers(head)
			} else {
				b.Nest(head, root)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if err := h.node.Put(ctx, blocks...); err != nil {
		return nil, err
	}
	var size int64
	for _, b := range blocks {
		size += int64(b.Size())
	}
	if err := h.remember(ctx, disk.Root{CID: head, Size: size, Leaves: int64(len(blocks)), Mode: disk.Seed}); err != nil {
		return nil, err
	}
	return &names.Record{Repo: c.Repo, Commit: c.ID, Block: head, Dir: c.Dir, Time: c.Time, Private: closed}, nil
}

// sign signs a record, keeps it, and answers with it from now on.
func (r *repos) sign(x *names.Record) error {
	x.Sequence = max(r.next(x), uint64(time.Now().UnixMilli())) // greater than before, even if the file was lost
	if err := x.Sign(r.key); err != nil {
		return err
	}
	r.published.Learn(x)
	return r.save()
}

func (r *repos) next(x *names.Record) uint64 {
	next := uint64(1)
	for _, o := range r.published.Records() {
		if o.Key == r.self() && o.Repo == x.Repo && o.Revision == x.Revision {
			next = max(next, o.Sequence+1)
		}
	}
	return next
}

// own returns what this home says a revision is, or nil.
func (r *repos) own(repo names.Repo, revision string) *names.Record {
	for _, x := range r.published.Answer(&names.Question{Repo: repo, Revision: revision}, func(*names.Record) bool { return true }) {
		if x.Key == r.self() {
			return x
		}
	}
	return nil
}

// digests returns what is known of the files of a commit, by their content.
func (r *repos) digests(ctx context.Context, of *names.Record) map[string]names.File {
	known := make(map[string]names.File)
	if of == nil {
		return known
	}
	c, err := names.ReadCommit(ctx, r.h.store, of.Block)
	if err != nil {
		return known // it is worked out anew
	}
	for _, f := range c.Files {
		if f.Root.Defined() {
			known[f.Root.KeyString()] = f
		}
	}
	return known
}

// digesting works out what git and LFS call the files of a root.
type digesting struct {
	h     *house
	q     *publishRequest
	known map[string]names.File
	note  func(addNote)

	done, total atomic.Int64
}

// commit lists the files under a root.
func (d *digesting) commit(ctx context.Context, root cid.Cid) (*names.Commit, error) {
	w, err := skeleton(ctx, d.h.store, root)
	if err != nil {
		return nil, err
	}
	c := &names.Commit{Repo: d.q.repo(), Time: time.Now().UTC().Truncate(time.Millisecond)}
	var todo []int
	for _, e := range w.Entries() {
		switch e.Kind {
		case unixfs.Directory:
			c.Dir = root
			continue
		case unixfs.Symlink:
			return nil, usagef("%s is a symbolic link, and repositories have none", e.Path)
		}
		f := names.File{Path: e.Path, Size: e.Size, Root: e.CID}
		if f.Path == "" {
			f.Path = filepath.Base(d.q.Path)
		}
		if err := names.CheckPath(f.Path); err != nil {
			return nil, usageError{err}
		}
		lfs := names.IsLFS(f.Path, f.Size)
		if k, ok := d.known[e.CID.KeyString()]; ok && k.Size == f.Size && (k.SHA256 != "") == lfs {
			f.Blob, f.SHA256 = k.Blob, k.SHA256
		} else {
			todo = append(todo, len(c.Files))
			d.total.Add(f.Size)
		}
		c.Files = append(c.Files, f)
	}
	if len(c.Files) == 0 {
		return nil, usagef("there are no files in %s to publish; hidden ones are left out unless --hidden is given", d.q.Path)
	}
	if err := d.hashAll(ctx, c.Files, todo); err != nil {
		return nil, err
	}
	slices.SortFunc(c.Files, func(a, b names.File) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	c.Identify()
	return c, c.Check()
}

// hashAll hashes files, one on each core.
func (d *digesting) hashAll(ctx context.Context, files []names.File, todo []int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg   sync.WaitGroup
		next atomic.Int64
		left atomic.Int64
	)
	workers := min(runtime.GOMAXPROCS(0), len(todo))
	left.Store(int64(workers))
	ended := make(chan struct{})
	for range workers {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(todo) || ctx.Err() != nil {
					break
				}
				if err := d.hash(ctx, &files[todo[i]], buf); err != nil {
					cancel(err)
				}
			}
			if left.Add(-1) == 0 {
				close(ended)
			}
		})
	}
	if workers == 0 {
		close(ended)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			d.note(addNote{Path: "naming " + d.q.repo().String(), Done: d.done.Load(), Total: d.total.Load(), Files: len(files)})
		case <-ended:
			running = false
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}

// hash works out what git calls a file, and LFS if it is one of its.
func (d *digesting) hash(ctx context.Context, f *names.File, buf []byte) error {
	in, unchanged, err := d.open(ctx, f)
	if err != nil {
		return err
	}
	defer in.Close()
	var sum hash.Hash
	if lfs := names.IsLFS(f.Path, f.Size); lfs {
		sum = sha256.New()
	} else {
		sum = sha1.New()
		fmt.Fprintf(sum, "blob %d\x00", f.Size)
	}
	var n int64
	for {
		k, err := in.Read(buf)
		sum.Write(buf[:k])
		n += int64(k)
		d.done.Add(int64(k))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if n != f.Size || !unchanged() {
		return &dray.Error{Op: "publish " + f.Path, CID: f.Root, Err: fmt.Errorf("%w while it was read; share it again", dray.ErrChanged)}
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if sum.Size() == sha256.Size {
		f.SHA256, f.Blob = digest, names.PointerBlob(digest, f.Size)
	} else {
		f.Blob = digest
	}
	return nil
}

// open opens a file where it lies, or as the store has it.
func (d *digesting) open(ctx context.Context, f *names.File) (in io.ReadCloser, unchanged func() bool, err error) {
	if !d.q.Copied {
		path := d.q.Path
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			path = filepath.Join(path, filepath.FromSlash(f.Path))
		}
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		if file, err := os.Open(path); err == nil && d.h.store.Unchanged(path) {
			return file, func() bool { return d.h.store.Unchanged(path) }, nil
		} else if err == nil {
			file.Close()
		}
	}
	r, err := unixfs.NewReader(ctx, d.h.store, f.Root, unixfs.ReaderConfig{})
	return r, func() bool { return true }, err
}

var cmdRepos = &cobra.Command{
	Use:   "repos",
	Short: "list and remove what is published as repositories",
	Long: `Repos lists the repositories that this home knows by name: those that were published here with ` + "`dray share --repo`" + `, and those
of others that were asked for (docs/hub.md).`,
	Example: `  dray repos ls
  dray repos rm org/name`,
}

var cmdReposLs = &cobra.Command{
	Use:   "ls",
	Short: "list the repositories that are known here",
	Long: `Ls lists what is known by name: the repository, the revision, the commit and who says so. Earlier commits are listed with --all.

With --json each line is {"repo":…,"revision":…,"commit":…,"cid":…,"key":…,"own":…,"trusted":…,"private":…,"time":…}.`,
	Example: `  dray repos ls`,
	Args:    arguments(0, 0, ""),
}

var cmdReposRm = &cobra.Command{
	Use:   "rm REPO",
	Short: "take a name back",
	Long: `Rm forgets what this home says of a repository, or with --revision of one branch or tag, with all its commits. What was shared
stays shared under its CID, until ` + "`dray rm`" + ` removes that. Others who have asked for the repository by then still know it.

With --json it prints {"repo":…,"removed":N}: records.`,
	Example: `  dray repos rm org/name
  dray repos rm datasets/org/name --revision v1`,
	Args: arguments(1, 1, "a REPO"),
}

func newRepos(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: cmdRepos.Use, Short: cmdRepos.Short, Long: cmdRepos.Long + "\n\n" + exitHelp, Example: cmdRepos.Example,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownCommand(c, args[0])
		},
	}
	var (
		all      bool
		revision string
	)
	ls := bind(e, cmdReposLs, func(ctx context.Context, e *env, _ []string) error { return runReposLs(ctx, e, all) })
	ls.Flags().BoolVar(&all, "all", false, "earlier commits, too")
	rm := bind(e, cmdReposRm, func(ctx context.Context, e *env, args []string) error { return runReposRm(ctx, e, args[0], revision) })
	rm.Flags().StringVar(&revision, "revision", "", "only this branch or tag")
	c.AddCommand(ls, rm)
	return c
}

// listedRepo is one record.
type listedRepo struct {
	Repo     string    `json:"repo"`
	Revision string    `json:"revision"`
	Commit   string    `json:"commit"`
	CID      string    `json:"cid"`
	Key      string    `json:"key"`
	Own      bool      `json:"own"`
	Trusted  bool      `json:"trusted"`
	Private  bool      `json:"private"`
	Time     time.Time `json:"time"`
	// Old says that a newer record of the same key is about another commit.
	Old bool `json:"old,omitempty"`
}

type removedRepo struct {
	Repo     string     `json:"repo"`
	Kind     names.Kind `json:"kind,omitempty"`
	Name     string     `json:"name,omitempty"`
	Revision string     `json:"revision,omitempty"`
	Removed  int        `json:"removed"`
}

var (
	taskRepos       = task[nothing, listedRepo, nothing]{name: "repos", network: true, run: listRepos}
	taskReposRemove = task[removedRepo, nothing, removedRepo]{name: "repos-rm", network: true, run: removeRepo}
)

func runReposLs(ctx context.Context, e *env, all bool) error {
	var failed error
	_, err := taskRepos.with(ctx, e, nothing{}, pipes[listedRepo]{note: func(r listedRepo) {
		switch {
		case r.Old && !all:
		case e.json:
			failed = errors.Join(failed, e.emit(r))
		default:
			by := "by " + r.Key
			if r.Own {
				by = "by this home"
			} else if !r.Trusted {
				by += ", not trusted any more"
			}
			if r.Private {
				by += ", private"
			}
			e.printf("%s  %s  %s  %s", r.Repo, r.Revision, r.Commit, by)
		}
	}})
	return errors.Join(err, failed)
}

func listRepos(_ context.Context, h *house, _ nothing, p pipes[listedRepo]) (nothing, error) {
	self, trust := h.repos.self(), h.repos.trusted()
	type line struct {
		repo     names.Repo
		revision string
		key      dray.PeerID
	}
	newest := make(map[line]uint64)
	records := h.repos.published.Records()
	for _, r := range records {
		k := line{r.Repo, r.Revision, r.Key}
		newest[k] = max(newest[k], r.Sequence)
	}
	for _, r := range records {
		_, trusted := trust.Rank(r.Key, r.Repo)
		p.note(listedRepo{
			Repo: r.Repo.String(), Revision: r.Revision, Commit: r.Commit, CID: r.Block.String(), Key: r.Key.String(),
			Own: r.Key == self, Trusted: trusted, Private: r.Private, Time: r.Time,
			Old: r.Sequence < newest[line{r.Repo, r.Revision, r.Key}],
		})
	}
	return nothing{}, nil
}

func runReposRm(ctx context.Context, e *env, name, revision string) error {
	repo, err := names.ParseRepo(name)
	if err != nil {
		return usageError{err}
	}
	r, err := taskReposRemove.with(ctx, e, removedRepo{Repo: repo.String(), Kind: repo.Kind, Name: repo.Name, Revision: revision}, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(removedRepo{Repo: r.Repo, Removed: r.Removed})
	}
	e.tell("%s is not published here any more", r.Repo)
	return nil
}

func removeRepo(ctx context.Context, h *house, q removedRepo, _ pipes[nothing]) (removedRepo, error) {
	h.repos.publishing.Lock()
	defer h.repos.publishing.Unlock()
	repo := names.Repo{Kind: q.Kind, Name: q.Name}
	var blocks []cid.Cid
	q.Removed = h.repos.published.Forget(func(r *names.Record) bool {
		gone := r.Repo == repo && (q.Revision == "" || r.Revision == q.Revision)
		if gone {
			blocks = append(blocks, r.Block)
		}
		return gone
	})
	if q.Removed == 0 {
		return q, &dray.Error{Op: "repos rm " + q.Repo, Err: fmt.Errorf("%w: no such repository or revision is known here; "+
			"`dray repos ls` lists those that are", dray.ErrNotFound)}
	}
	if err := h.repos.save(); err != nil {
		return q, err
	}
	for _, r := range h.repos.published.Records() { // what another revision still needs
		blocks = slices.DeleteFunc(blocks, func(c cid.Cid) bool { return c == r.Block })
	}
	for _, c := range blocks {
		if _, err := removeRoot(ctx, h, removeRequest{CID: c.String()}, pipes[nothing]{}); err != nil && !errors.Is(err, dray.ErrNotFound) {
			return q, err
		}
	}
	return q, nil
}
