package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	"dray/exchange"
	"dray/node"
	"dray/store/disk"
	"dray/tensor"
	"dray/unixfs"
)

var cmdGet = &cobra.Command{
	Use:   "get " + targetHelp,
	Short: "get a file or directory",
	Long: `Get writes a file or directory to the current directory, under the name in the ticket or, if there is none, the CID; -o
names another place, and one that ends in a slash is a directory to put it in. Every block is verified before it is
written. What this host has is served to others at once.

Interrupted by ^C or anything worse, the same command continues where it stopped. It refuses to overwrite what is
different, unless --force is given. A root that is neither file nor directory is fetched whole and written as a CAR.

With --tensors it gets part of a model: a safetensors file with just the tensors whose names match, out of one file or of all
that a model is split into. A pattern matches whole names: * any characters, ? one, [0-7] a number from 0 to 7, [a-f] one
character of a set, {a,b} either. --tp gets what one tensor-parallel rank needs of each matrix. --sparse keeps what was selected
where it is in the original files, with holes for the rest. What is fetched is what was selected, the headers, and the rest of
the blocks at the borders. ` + "`dray tensors`" + ` lists the names.

--order layers has the tensors of a model come about in the order in which they are used: the embedding, the layers by number,
the head. Whoever reads the file while it grows, or follows --json, can begin long before it is complete.

With --detach the daemon (` + "`dray serve`" + `) does it, and goes on after it was stopped or killed, until it is done; get ends at
once. Without a daemon the order lies in the home until one is started. ` + "`dray jobs`" + ` lists what was ordered. --mode says what it
is kept for, see ` + "`dray seed`" + `.

With --json it prints one event a line: {"event":"started",…}, "tensor" for each tensor that is complete and in its place,
"progress" now and then, "waiting" with the reason while nothing arrives, and last {"event":"completed","cid":…,"bytes":…,"seconds":…,"known_bytes":…,
"sources":[{"peer":…,"protocol":…,"data_plane":…,"path":…,"bytes":…}],"duplicate_bytes":…}, where known is what was here before.`,
	Example: `  dray get dray1afyrei…
  dray get bafybei… -o model/ --from /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…
  dray get bafybei…/weights/part-1.bin --timeout 10m
  dray get bafybei… --tensors 'model.layers.[0-7].*' --tensors 'model.embed_tokens.*' -o first.safetensors
  dray get TICKET --order layers --json
  dray get TICKET --detach -o /models/
  dray get TICKET --tp 3/8
  dray get TICKET --tp 0/2 --tp-axis '*.qkv_proj.*=0:4,1,1' --tp-axis '*.gate.*=replicated'
  dray get bafybei…/model.gguf --tensors 'blk.0.*' --sparse`,
	Args: arguments(1, 1, targetHelp),
}

type getOptions struct {
	sourceOptions
	output string
	force  bool
	order  string
	mode   string
	detach bool
	class  string
	part   partOptions
}

const orderLayers = "layers"

var orders = []string{"rarest", "inorder", orderLayers}

func newGet(e *env) *cobra.Command {
	var o getOptions
	c := bind(e, cmdGet, func(ctx context.Context, e *env, args []string) error { return runGet(ctx, e, o, args) })
	o.flags(c)
	planeFlag(e, c)
	limitFlags(e, c)
	c.Flags().StringVarP(&o.output, "output", "o", "", "where to write it")
	c.Flags().BoolVarP(&o.force, "force", "f", false, "overwrite what is there")
	c.Flags().StringVar(&o.order, "order", "", "what to ask for first: rarest (for many who get the same; the default for wholes), "+
		"inorder (the default for tensors), or layers (embedding, layers by number, head)")
	c.Flags().BoolVar(&o.detach, "detach", false, "leave it to the daemon, and end at once; see dray jobs")
	c.Flags().StringVar(&o.class, "priority", "normal", "with --detach, which jobs go first: low, normal or high")
	modeFlag(c, &o.mode, "")
	o.part.flags(c)
	_ = c.RegisterFlagCompletionFunc("priority", cobra.FixedCompletions(classNames, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("order", cobra.FixedCompletions(orders, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// getRequest asks for a target to be written to a path.
type getRequest struct {
	targetRequest
	// Output is absolute.
	Output string `json:"output"`
	// AutoName says that the user did not choose the output's name.
	AutoName bool          `json:"auto_name,omitempty"`
	Force    bool          `json:"force,omitempty"`
	InOrder  bool          `json:"in_order,omitempty"`
	Layers   bool          `json:"layers,omitempty"`
	Part     *partRequest  `json:"part,omitempty"`
	Timeout  time.Duration `json:"timeout,omitempty"`
	// Mode is what it is kept for, see [disk.Mode].
	Mode disk.Mode `json:"mode,omitempty"`
	// InStore says that it is only brought into the store; there is no Output then.
	InStore bool `json:"in_store,omitempty"`
	// Again says that an earlier attempt may have done it all: then nothing is overwritten a second time.
	Again bool `json:"again,omitempty"`
	// origin says on whose behalf; if zero, a get's.
	origin node.Origin
}

// onBehalf says who gets it, to those who look.
func (q *getRequest) onBehalf() node.Origin {
	o := q.origin
	if o.Who == "" {
		o.Who = "get"
	}
	if o.Name == "" && q.Output != "" {
		o.Name = filepath.Base(q.Output)
	}
	return o
}

// source is one peer's part in a get.
type source struct {
	Peer     string `json:"peer"`
	Protocol string `json:"protocol"`
	// DataPlane is what the bytes took at last, as in dray peers; "" while it goes on, or if the peer is gone.
	DataPlane string `json:"data_plane,omitempty"`
	// Path is how the peer was connected at last: "direct over tcp", or "relayed over quic-v1 via 12D3KooW…".
	Path  string `json:"path,omitempty"`
	Bytes int64  `json:"bytes"`
}

// getResult is what was got.
type getResult struct {
	// Event is "completed" in what get prints.
	Event   string  `json:"event,omitempty"`
	CID     string  `json:"cid"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	// KnownBytes were here before.
	KnownBytes     int64    `json:"known_bytes"`
	Sources        []source `json:"sources"`
	DuplicateBytes int64    `json:"duplicate_bytes"`
}

// getNote is how far a get is: "started" once at first, or "progress", or a Tensor.
type getNote struct {
	Event string `json:"event"`
	CID   string `json:"cid"`
	// Done of Total bytes are in place, of which Reused were here before. Total is final once Known.
	Done   int64 `json:"done"`
	Total  int64 `json:"total"`
	Known  bool  `json:"known"`
	Reused int64 `json:"reused"`
	// Rate is in bytes a second.
	Rate    float64  `json:"rate"`
	Seconds float64  `json:"seconds"`
	Sources []source `json:"sources"`
	// Waiting says of each peer what is expected of it, or why it cannot be reached.
	Waiting []string `json:"waiting,omitempty"`
	Stalled bool     `json:"stalled,omitempty"`
	// Tensor, if set, is what the note is about, and all that is printed of it.
	Tensor *tensorNote `json:"tensor,omitempty"`
}

// startedNote is all that is printed of the first note.
type startedNote struct {
	Event string `json:"event"`
	CID   string `json:"cid"`
}

// tensorNote is a tensor that is complete and in its place.
type tensorNote struct {
	Event string  `json:"event"`
	File  string  `json:"file,omitempty"` // under the root
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
	Bytes int64   `json:"bytes"`
	// Seconds is the time from the start until then.
	Seconds float64 `json:"seconds"`
	// Ready of All tensors are so far.
	Ready int `json:"ready"`
	All   int `json:"all"`
}

var taskGet = task[getRequest, getNote, getOutcome]{name: "get", network: true, run: getTarget}

// getOutcome is a getResult with what people want to know besides.
type getOutcome struct {
	getResult
	Path string `json:"path"`
}

func runGet(ctx context.Context, e *env, o getOptions, args []string) error {
	t, err := o.target(args[0])
	if err != nil {
		return err
	}
	if o.order != "" && !slices.Contains(orders, o.order) {
		return usagef("there is no order %q%s", o.order, suggest(o.order, orders, "there are rarest, inorder and layers"))
	}
	class, ok := jobClasses[o.class]
	if !ok {
		return usagef("there is no priority %q%s", o.class, suggest(o.class, classNames, "there are low, normal and high"))
	}
	mode, err := parseMode(o.mode)
	if err != nil {
		return err
	}
	part, err := o.part.request(o.order)
	if err != nil {
		return err
	}
	auto := o.output == "" && t.name == ""
	if part != nil {
		if mode != "" {
			return usagef("--mode is for roots, and what --tensors and --tp get is a part of one; leave it out, or get the whole")
		}
		if t.name == "" {
			t.name = t.root.String()
		}
		t.name, auto = part.name(t.name), false
	}
	output, err := outputPath(o.output, t)
	if err != nil {
		return err
	}
	q := getRequest{
		targetRequest: t.request(), Output: output, Force: o.force, Timeout: o.timeout, AutoName: auto, Part: part,
		InOrder: o.order == "inorder" || part != nil && o.order != "rarest", Layers: o.order == orderLayers,
		Mode: mode,
	}
	if o.detach {
		return runOrder(ctx, e, orderRequest{getRequest: q, Class: class})
	}
	result, err := getShown(ctx, e, q)
	if err != nil {
		return err
	}
	if e.json {
		result.Event = "completed"
		return e.emit(result.getResult)
	}
	result.print(e)
	return nil
}

// runOrder has the daemon do a get.
func runOrder(ctx context.Context, e *env, q orderRequest) error {
	r, err := taskOrder.with(ctx, e, q, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	e.printf("%d", r.Job)
	switch {
	case !r.Fresh:
		e.tell("job %d is for the same; it has these sources now, too", r.Job)
	case r.Working:
		e.tell("job %d gets %s; `dray jobs` says how far it is", r.Job, r.Path)
	default:
		e.tell("job %d waits for a daemon: start one with `dray serve`", r.Job)
	}
	return nil
}

// outputPath says where a target goes.
func outputPath(output string, t target) (string, error) {
	name := t.name
	if name == "" {
		name = t.root.String()
	}
	switch {
	case output == "":
		output = name
	case strings.HasSuffix(output, "/") || strings.HasSuffix(output, string(filepath.Separator)):
		output = filepath.Join(output, name)
	}
	parent := filepath.Dir(output)
	if info, err := os.Stat(parent); err != nil || !info.IsDir() {
		return "", usagef("%q is not there to write %q into; make it first, or name another place with -o",
			parent, filepath.Base(output))
	}
	return filepath.Abs(output)
}

func getShown(ctx context.Context, e *env, q getRequest) (getOutcome, error) {
	b := newBar(e, cut(filepath.Base(q.Output), 24))
	defer b.close()
	var (
		mu     sync.Mutex // notes and waits come from two goroutines
		failed error
		last   getNote
	)
	line := waitLine{e: e}
	wait := func(n waitNote) {
		mu.Lock()
		defer mu.Unlock()
		switch now := time.Now(); {
		case e.json && !n.Over && now.Sub(line.printed) >= waitEvery:
			line.printed = now
			failed = errors.Join(failed, e.emit(n))
		case e.json:
		case b.d.mpb != nil:
			b.wait(n.Text)
		default:
			line.show(n)
		}
	}
	result, err := taskGet.with(ctx, e, q, pipes[getNote]{wait: wait, note: func(n getNote) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case e.json && n.Tensor != nil:
			failed = errors.Join(failed, e.emit(n.Tensor))
		case e.json && n.Event == "started":
			failed = errors.Join(failed, e.emit(startedNote{n.Event, n.CID}))
		case e.json:
			failed = errors.Join(failed, e.emit(n))
		case n.Event == "progress":
			b.set(n.meter())
		}
		if n.Event == "progress" {
			last = n
		}
	}})
	var hint resumable
	if wasInterrupted(ctx) && last.Done > 0 && !errors.As(err, &hint) { // a daemon did it, and was told to stop
		err = resumable{hint: kept(last.Done, last.Total, q.Output), err: err}
	}
	return result, errors.Join(err, failed)
}

// kept says how far an unfinished get is and how to continue.
func kept(done, total int64, output string) string {
	return fmt.Sprintf("%s of %s are kept beside %s; the same command continues", size(done), size(total), output)
}

// meter is the note as a bar shows it.
func (n *getNote) meter() meter {
	m := meter{done: n.Done, total: n.Total, known: n.Known, rate: n.Rate}
	if len(n.Sources) > 0 {
		var parts []string
		for _, s := range n.Sources {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %s %s", shortID(s.Peer), size(s.Bytes), shortPath(s.Path))))
		}
		m.notes = append(m.notes, "from "+strings.Join(parts, ", "))
	}
	m.stalled = n.Stalled
	return m
}

// shortID shortens a peer id as people see it.
func shortID(id string) string {
	if len(id) > 8 {
		return "…" + id[len(id)-8:]
	}
	return id
}

func (r *getOutcome) print(e *env) {
	e.tell("%s: %s in %s%s", r.CID, size(r.Bytes), seconds(time.Duration(r.Seconds*float64(time.Second))), r.origin())
	e.printf("%s", r.Path)
}

// origin says where the bytes came from.
func (r *getOutcome) origin() string {
	var parts []string
	for _, s := range r.Sources {
		part := fmt.Sprintf("%s from %s", size(s.Bytes), shortID(s.Peer))
		if s.Path != "" {
			part += " " + shortPath(s.Path)
		}
		if s.DataPlane != "" {
			part += ", data over " + s.DataPlane
		}
		parts = append(parts, part)
	}
	if r.KnownBytes > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s were already here", size(r.KnownBytes), size(r.Bytes)))
	}
	if r.DuplicateBytes > 0 {
		parts = append(parts, size(r.DuplicateBytes)+" came twice")
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// getTarget is the task: write what a target names to a path.
func getTarget(ctx context.Context, h *house, q getRequest, p pipes[getNote]) (getOutcome, error) {
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return getOutcome{}, err
	}
	g := &getting{h: h, q: q, t: t, note: p.note, start: time.Now(), lastMove: time.Now()}
	g.note(getNote{Event: "started", CID: t.root.String()})
	defer h.grow(t.root)()
	if len(t.names) > 0 {
		if t.root, err = h.lookup(ctx, t); err != nil {
			return getOutcome{}, err
		}
		if err := h.nest(ctx, t.root, g.t.root); err != nil {
			return getOutcome{}, err
		}
		g.t = target{root: t.root, peers: t.peers}
		defer h.grow(t.root)()
	}
	if q.Part != nil {
		return g.part(ctx, q.Part)
	}
	return g.run(ctx)
}

// lookup finds what a target's path names.
func (h *house) lookup(ctx context.Context, t target) (cid.Cid, error) {
	ctx, a, err := h.ask(ctx, t, exchange.InOrder)
	if err != nil {
		return cid.Undef, err
	}
	defer a.close()
	c, err := a.resolve(ctx, t.names)
	return c, a.explain(ctx, err)
}

// getting is one get.
type getting struct {
	h     *house
	q     getRequest
	t     target
	note  func(getNote)
	start time.Time

	progress node.Progress
	paths    map[string]string // how each peer was last connected
	lastDone int64
	lastMove time.Time
}

func (g *getting) run(ctx context.Context) (getOutcome, error) {
	if !g.q.InStore {
		done, err := g.survey(ctx)
		if err != nil || done != nil {
			return g.outcome(done), err
		}
	}
	n, offline, closeNode, err := g.h.reach(g.t.peers)
	if err != nil {
		return getOutcome{}, err
	}
	defer closeNode()
	cfg := node.FetchConfig{
		Root: g.t.root, Path: g.q.Output, Peers: g.t.peers, Order: exchange.Rarest, Origin: g.q.onBehalf(), Watch: node.NewWatch(),
	}
	if g.q.InOrder {
		cfg.Order = exchange.InOrder
	}
	if g.q.Layers {
		cfg.Use = tensor.ByLayers
		if len(g.t.peers) < 2 {
			cfg.Order = exchange.InOrder // there is nobody to share the work with
		}
	}
	err = g.follow(cfg.Watch, func() (node.Progress, error) { return n.Fetch(ctx, cfg) })
	if isNoFile(err, g.t.root) {
		return g.whole(ctx, n)
	}
	if err != nil {
		if offline {
			err = nobody(g.t.root, g.t.peers, err)
		}
		return getOutcome{}, g.explain(err)
	}
	if err := g.rememberGot(ctx, &g.progress); err != nil {
		return getOutcome{}, err
	}
	return g.outcome(&g.progress), nil
}

// follow runs a fetch, and makes notes of what happens. Whoever reads them slowly does not delay the fetch.
func (g *getting) follow(w *node.Watch, fetch func() (node.Progress, error)) (err error) {
	var wg sync.WaitGroup
	before := time.Since(g.start)
	wg.Go(func() { g.progress, err = fetch() })
	for e := range w.Events(context.Background()) { // which end with the fetch
		switch e := e.(type) {
		case node.Progress:
			g.show(e)
		case node.TensorReady:
			g.note(getNote{Event: "tensor", Tensor: &tensorNote{
				Event: "tensor", File: e.File, Name: e.Name, DType: e.DType.Name, Shape: e.Shape, Bytes: e.Bytes,
				Seconds: (before + e.After).Seconds(), Ready: e.Ready, All: e.All,
			}})
		}
	}
	wg.Wait()
	return err
}

// isNoFile reports whether a get failed because the root is neither file nor directory.
func isNoFile(err error, root cid.Cid) bool {
	var e *dray.Error
	return errors.As(err, &e) && e.CID == root && errors.Is(err, unixfs.ErrNotUnixFS)
}

func (g *getting) outcome(p *node.Progress) getOutcome {
	if p == nil {
		return getOutcome{}
	}
	r := getOutcome{Path: g.q.Output}
	r.CID, r.Bytes, r.Seconds = g.t.root.String(), p.Total, time.Since(g.start).Seconds()
	r.Sources, r.DuplicateBytes, r.KnownBytes = g.trace(g.h.planes(sources(p))), p.Duplicates, p.Reused
	return r
}

func sources(p *node.Progress) []source {
	list := []source{}
	for _, s := range p.Sources {
		list = append(list, source{Peer: s.Peer.String(), Protocol: s.Protocol, Bytes: s.Bytes})
	}
	return list
}

// show turns the node's progress into a note.
func (g *getting) show(p node.Progress) {
	now := time.Now()
	if p.Done != g.lastDone {
		g.lastDone, g.lastMove = p.Done, now
	}
	n := getNote{
		Event: "progress", CID: p.Root.String(), Done: p.Done, Total: p.Total, Known: p.Walked, Reused: p.Reused,
		Rate: p.Rate, Seconds: p.Elapsed.Seconds(), Sources: g.trace(sources(&p)), Waiting: trouble(&p),
	}
	n.Stalled = now.Sub(g.lastMove) >= stalledFor && (!p.Walked || p.Done < p.Total)
	g.note(n)
}

// trouble says of each peer why it has not delivered all.
func trouble(p *node.Progress) []string {
	var lines []string
	for _, u := range p.Unreached {
		lines = append(lines, fmt.Sprintf("%v: %s", u.Peer.ID, oneLine(u.Err)))
	}
	return append(lines, waitLines(p.Peers)...)
}

// explain says who was tried, and how to continue.
func (g *getting) explain(err error) error {
	p := &g.progress
	for _, sentinel := range []error{dray.ErrTimeout, dray.ErrUnreachable, dray.ErrNotFound} {
		if len(trouble(p)) == 0 {
			break
		}
		if errors.Is(err, sentinel) {
			err = &tried{err: &dray.Error{Op: "get", CID: g.t.root, Err: sentinel}, lines: trouble(p)}
			break
		}
	}
	if p.Done == 0 {
		return err
	}
	return resumable{hint: kept(p.Done, p.Total, g.q.Output), err: err}
}

// rememberGot records the root, whose files lie at its path.
func (g *getting) rememberGot(ctx context.Context, p *node.Progress) error {
	r := disk.Root{CID: g.t.root, Path: g.q.Output, Size: p.Total, Leaves: int64(p.Leaves), Mode: g.q.Mode, Sources: g.q.Peers}
	if g.q.Output != "" {
		var err error
		if r.Files, err = filesUnder(g.q.Output); err != nil {
			return err
		}
	}
	return g.h.remember(ctx, r)
}

// filesUnder lists the regular files at a path.
func filesUnder(path string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, p)
		}
		return err
	})
	return files, err
}
