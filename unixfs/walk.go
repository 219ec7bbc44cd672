package unixfs

import (
	"math"
	"sort"

	"github.com/ipfs/go-cid"

	"dray"
)

// WalkConfig bounds a [Walk]. The zero value is ready to use.
type WalkConfig struct {
	// Ahead is the most skeleton blocks that are asked for and not yet fed. If zero, 1024.
	Ahead int
	// MaxEntries is the most files, directories and symlinks under a root. If zero, 4,194,304.
	MaxEntries int
	// MaxLeaves is the most leaves under a root, counting repeated ones every time. If zero, 67,108,864.
	MaxLeaves int
	// MaxDepth is how deep directories may be nested. If zero, 256.
	MaxDepth int
	// Shallow stops at the entries of the root, when that is a directory: they are listed by name and CID, with Kind
	// Unknown, and only the root and its shards are asked for.
	Shallow bool
}

const (
	// maxFileDepth is the most levels of nodes in one file. With two links a node it would hold 2^64 leaves.
	maxFileDepth = 64
	// aheadLinks is how many links may lie parsed ahead of the place that the walk has reached, before it looks further
	// ahead with few blocks only; aheadFloor is how few.
	aheadLinks = 1 << 16
	aheadFloor = 64
	// leafOverhead is below what the smallest interior node adds to its children's Tsize: a link with a 20-byte digest,
	// and a size. The wrapping of a leaf takes less than half of it.
	leafOverhead = 32
)

// Entry is one file, directory or symlink that a [Walk] has reached.
type Entry struct {
	// Path is where it lies under the root, with slashes between names; the root's own path is empty.
	Path string
	// Kind is File, Directory or Symlink; or Unknown in a shallow walk. A sharded directory is a Directory, a raw leaf a
	// File.
	Kind Kind
	// CID is its root.
	CID cid.Cid
	// Size is the number of bytes in a file, and the Tsize of what is Unknown, or 0 when it has none; 0 otherwise.
	Size int64
	// Offset is the byte of the manifest at which a file begins.
	Offset int64
	// First is the index in the manifest of a file's first leaf, and Leaves how many are known so far. A file always
	// has at least one leaf, even when it is empty. For others First says how many leaves come before.
	First, Leaves int
	// Target is where a symlink points, uninterpreted. It comes from whoever made the DAG.
	Target string
}

// Walk turns the skeleton under a root into entries and a manifest, as the skeleton arrives. It is a state machine:
// ask [Walk.Need] which blocks it needs, fetch them in any way and order, hand them to [Walk.Feed], and look at
// [Walk.Entries] and [Walk.Manifest], which grow in depth-first order, so that leaves can be fetched long before the
// whole skeleton is known.
//
// The leaves themselves are not needed where they can be told from their parents: raw blocks are leaves, and so are
// dag-pb blocks that by their Tsize weigh hardly more than their content. That is a rule about bytes that everybody
// has, so everybody derives the same manifest. Tsize may be a lie, though. Whoever fetches a leaf checks it: if
// [SplitLeaf] fails, or the content is not as long as the manifest says, call [Walk.Refute] with its CID. The walk
// then starts over and looks into that block instead of trusting its parent, which either gives the right manifest or
// an error that names the liar.
//
// Blocks are asked for once while they are wanted; one that occurs in many places may be asked for again later, when
// it is surely at hand. Hostile DAGs are bounded by [WalkConfig]. A Walk is not safe for concurrent use.
type Walk struct {
	root cid.Cid
	cfg  WalkConfig

	head, tail *slot // what lies ahead, in depth-first order
	scan       *slot // the first slot that Need has not looked at
	buffered   int   // links and slots in the list
	expected   int   // links that the outstanding blocks may add
	waiting    map[cid.Cid][]*slot
	memo       memo
	refuted    map[cid.Cid]struct{}

	entries []Entry
	file    int // index of the entry that leaves are being added to
	man     *dray.Manifest
	err     error
}

// slot is one place in the depth-first order: an entry to report, a run of leaves to report, or a block to look into.
type slot struct {
	prev, next *slot
	entry      *Entry // report this, or
	leaves     []Link // report these, or
	task              // look into this
}

// task is a block that the walk has to look into, and what is known about it.
type task struct {
	link  Link
	role  role
	depth int // of directories above
	level int // of file nodes or shards above, within the same file or directory
	path  string
	bits  uint64 // for a shard: the slots that led to it
	fan   int    // for a shard below another: the fanout it must have
	guess int    // how many links the block may have

	asked, dropped bool
}

// role says what a task's block has to be.
type role uint8

const (
	asEntry role = iota // a file, directory or symlink
	asPart              // a part of a file, of link.Size bytes
	asShard             // a part of a directory
)

// NewWalk returns a Walk from root, which must be a file, a directory or a symlink.
func NewWalk(root cid.Cid, cfg WalkConfig) *Walk {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.Ahead, 1024)
	def(&cfg.MaxEntries, 1<<22)
	def(&cfg.MaxLeaves, 1<<26)
	def(&cfg.MaxDepth, 256)
	w := &Walk{root: root, cfg: cfg, refuted: make(map[cid.Cid]struct{})}
	w.reset()
	return w
}

func (w *Walk) reset() {
	w.head, w.tail, w.scan = nil, nil, nil
	w.buffered, w.expected = 0, 0
	w.waiting = make(map[cid.Cid][]*slot)
	w.memo = memo{}
	w.entries, w.file, w.err = nil, -1, nil
	w.man = dray.NewManifest(w.root, 0)
	s := &slot{task: task{link: Link{CID: w.root, Tsize: -1}, guess: 1}}
	w.insert(nil, s)
	w.scan = s
	w.advance()
}

// Need appends to dst the CIDs of blocks that the walk wants now and has not asked for yet, nearest first. Call it
// again after every Feed, or every few: what is outstanding stays wanted until it is fed.
func (w *Walk) Need(dst []cid.Cid) []cid.Cid {
	for w.err == nil && w.scan != nil {
		s := w.scan
		if s.resolved() || s.asked {
			w.scan = s.next
			continue
		}
		if s != w.head && !w.mayLookAhead(s) {
			break
		}
		if sh, ok := w.known(s.link.CID); ok {
			w.expand(s, sh) // moves scan
			w.advance()
			continue
		}
		if w.err != nil {
			break
		}
		s.asked = true
		w.expected += s.guess
		w.scan = s.next
		waiters := w.waiting[s.link.CID]
		w.waiting[s.link.CID] = append(waiters, s)
		if len(waiters) == 0 {
			dst = append(dst, s.link.CID)
		}
	}
	return dst
}

// mayLookAhead reports whether the block of s, which is not the next one, may be asked for now.
func (w *Walk) mayLookAhead(s *slot) bool {
	if len(w.waiting) >= w.cfg.Ahead {
		return false
	}
	if w.buffered+w.expected <= aheadLinks {
		return true
	}
	return len(w.waiting) < aheadFloor && !s.dropped
}

// Feed hands in a block of the skeleton. A block that was not asked for is ignored. The error, if any, ends the walk
// and is returned by every later call: an [*dray.Error] naming the block, which wraps [ErrInvalid], [ErrNotUnixFS] or
// [ErrTooLarge]. Feed keeps nothing of the block's memory.
func (w *Walk) Feed(b dray.Block) error {
	waiters := w.waiting[b.CID()]
	if w.err != nil || len(waiters) == 0 {
		return w.err
	}
	sh, err := shapeOf(b.CID(), b.Data())
	if err != nil {
		return w.fail(b.CID(), err)
	}
	delete(w.waiting, b.CID())
	w.memo.add(b.CID(), sh)
	for _, s := range waiters {
		w.expected -= s.guess
		s.asked = false
		if s != w.head && w.buffered > 2*aheadLinks {
			// Too much lies ahead already. The block is at hand now, so asking again later costs little.
			s.dropped = true
			w.scan = w.head
			continue
		}
		w.expand(s, sh)
	}
	w.advance()
	return w.err
}

// Err returns what ended the walk, or nil.
func (w *Walk) Err() error { return w.err }

// Done reports whether the whole skeleton was walked, so that Entries and Manifest are complete.
func (w *Walk) Done() bool { return w.err == nil && w.head == nil }

// Outstanding returns the number of blocks asked for and not fed yet.
func (w *Walk) Outstanding() int { return len(w.waiting) }

// Root returns the CID that the walk starts from.
func (w *Walk) Root() cid.Cid { return w.root }

// Entries returns the entries reached so far, parents before children. All but the last are complete; the last may be
// a file whose Leaves still grows. The slice is the Walk's own: it is valid until the next call of Feed, Need or
// Refute, and must not be changed.
func (w *Walk) Entries() []Entry { return w.entries }

// Manifest returns the leaves known so far: those of all files under the root, one file after the other in the order
// of Entries. It grows with every Feed until the walk is Done and must not be read by others before.
func (w *Walk) Manifest() *dray.Manifest { return w.man }

// FileOf returns the index in Entries of the file that leaf i of the manifest belongs to. The leaf's content goes
// into that file at the leaf's offset minus the file's. I must be below the manifest's Len.
func (w *Walk) FileOf(i int) int {
	// The last entry that begins at or before i: entries after that file begin behind its leaves.
	return sort.Search(len(w.entries), func(e int) bool { return w.entries[e].First > i }) - 1
}

// Refute says that the block c is not the leaf that the manifest says it is. The walk starts over, with empty Entries
// and Manifest, and will ask for c itself. It returns the walk's error if c was refuted before: nothing more can be
// learned.
func (w *Walk) Refute(c cid.Cid) error {
	if w.err != nil {
		return w.err
	}
	if _, again := w.refuted[c]; again {
		return w.fail(c, invalid("leaf does not hold what its parent says"))
	}
	w.refuted[c] = struct{}{}
	w.reset()
	return w.err
}

func (w *Walk) fail(c cid.Cid, err error) error {
	if w.err == nil {
		w.err = at("walk", c, err)
	}
	return w.err
}

// advance reports what stands at the front until it comes to a block that is not known.
func (w *Walk) advance() {
	for w.err == nil && w.head != nil {
		s := w.head
		switch {
		case s.entry != nil:
			w.report(s)
			w.remove(s)
		case s.leaves != nil:
			w.reportLeaves(s)
			w.remove(s)
		case s.asked:
			return
		default:
			sh, ok := w.known(s.link.CID)
			if !ok {
				return
			}
			w.expand(s, sh)
		}
	}
}

func (w *Walk) report(s *slot) {
	if len(w.entries) >= w.cfg.MaxEntries {
		w.fail(w.root, ErrTooLarge)
		return
	}
	e := *s.entry
	e.First, e.Offset = w.man.Len(), w.man.Size()
	if e.Size > math.MaxInt64-e.Offset {
		w.fail(e.CID, invalid("size overflows"))
		return
	}
	if e.Kind == File {
		w.file = len(w.entries)
	}
	w.entries = append(w.entries, e)
}

func (w *Walk) reportLeaves(s *slot) {
	if len(s.leaves) > w.cfg.MaxLeaves-w.man.Len() {
		w.fail(w.root, ErrTooLarge)
		return
	}
	for _, l := range s.leaves {
		w.man.Append(l.CID, l.Size)
	}
	w.entries[w.file].Leaves += len(s.leaves)
}

// known returns the shape of a block that needs no asking: one seen not long ago, or one that is inside its CID.
func (w *Walk) known(c cid.Cid) (*shape, bool) {
	if sh := w.memo.get(c); sh != nil {
		return sh, true
	}
	b, ok := identityBlock(c)
	if !ok {
		return nil, false
	}
	sh, err := shapeOf(c, b.Data())
	if err != nil {
		w.fail(c, err)
		return nil, false
	}
	return sh, true
}

// insert puts s after the given slot, or at the front.
func (w *Walk) insert(after, s *slot) {
	if after == nil {
		s.next, w.head = w.head, s
	} else {
		s.prev, s.next = after, after.next
		after.next = s
	}
	if s.next == nil {
		w.tail = s
	} else {
		s.next.prev = s
	}
	w.buffered += 1 + len(s.leaves)
}

func (w *Walk) remove(s *slot) {
	if s.prev == nil {
		w.head = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		w.tail = s.prev
	} else {
		s.next.prev = s.prev
	}
	if w.scan == s {
		w.scan = s.next
	}
	w.buffered -= 1 + len(s.leaves)
}

// resolved reports whether the slot needs no block.
func (s *slot) resolved() bool { return s.entry != nil || s.leaves != nil }
