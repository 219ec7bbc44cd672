package mirror

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"dray"
	"dray/hub"
	"dray/names"
	"dray/transport"
	"dray/unixfs"
)

// Protocol is what Mirrors ask each other over.
const Protocol transport.Protocol = "/dray/upstream/1"

// Blocks is where the content lies. It is safe for concurrent use.
type Blocks interface {
	// Local returns a block that is in the store, or an error wrapping [dray.ErrNotFound].
	Local(ctx context.Context, c cid.Cid) (dray.Block, error)
	// Put writes blocks to the store and lets those know who wait for them. The bytes may be used again after it returns.
	Put(ctx context.Context, blocks ...dray.Block) error
	// Hold keeps what is written until release is called from being collected.
	Hold() (release func())
	// Keep records a file, all of whose blocks are written.
	Keep(ctx context.Context, file unixfs.Ref, leaves int) error
	// Kept reports whether a file is recorded still, and Used notes that it is read.
	Kept(ctx context.Context, root cid.Cid) bool
	Used(ctx context.Context, root cid.Cid)
}

// Session gets blocks that belong together from the store and from peers. It is safe for concurrent use.
type Session interface {
	dray.Getter
	Close() error
}

// Swarm is the connected peers. It is safe for concurrent use.
type Swarm interface {
	// Self is this node.
	Self() dray.PeerID
	// Peers lists who is connected.
	Peers() []dray.PeerID
	// Call opens a stream for [Protocol]. The error wraps [transport.ErrRefused] when the peer does not speak it.
	Call(ctx context.Context, peer dray.PeerID) (transport.Stream, error)
	// Session begins to get blocks of which some peers are expected to have many. With only, nobody else is asked.
	Session(only bool, peers ...dray.PeerID) Session
}

// Config says what a Mirror is made of. Upstream, Blocks, Swarm and Dir are required.
type Config struct {
	// Upstream is what is mirrored. The Mirror does not close it.
	Upstream *Upstream
	// Blocks keeps the content, and Swarm has the others.
	Blocks Blocks
	Swarm  Swarm
	// Dir is a directory for notes about commits and leaves. It is made if need be.
	Dir string
	// Trusts reports whose word about what a commit holds is as good as the upstream's, and who gets what the upstream does not
	// show to everybody. If nil, nobody's.
	Trusts func(dray.PeerID) bool
	// Fresh is how long what a branch or tag is said to be holds. If zero, a minute.
	Fresh time.Duration
	// Silence is how long a feed may say nothing, and Patience how long it may bring no leaf, before another peer is turned to.
	// If zero, 10 and 60 seconds.
	Silence, Patience time.Duration
	// Linger is how long a file goes on to come that nobody reads; it continues when somebody does. If zero, a minute; if
	// negative, until it is here.
	Linger time.Duration
	// Leads is how many files are read from the upstream at once; more wait. If zero, 8.
	Leads int
	// Piece is how much of a file is asked for at once at first, in bytes; it doubles twice. If zero, 32 MiB.
	Piece int64
	// Watch is called when a file begins to come from the upstream, with its name for people and its size, and returns who is to
	// hear what comes of it, or nil. If Watch is nil, nobody is.
	Watch func(name string, size int64) Arrival
	// Log is told of what an operator may want to know. If nil, nothing is logged.
	Log *slog.Logger
}

// Arrival hears what comes of a file from the upstream. Its methods are safe for concurrent use and do not block.
type Arrival interface {
	// Came says that the upstream has sent so many bytes.
	Came(bytes int64)
	// End says that nothing more will come, and why, if something is missing.
	End(err error)
}

// Mirror is a [hub.Library] over an upstream that the swarm reads once. It is safe for concurrent use.
type Mirror struct {
	cfg    Config
	id     string // of the upstream, to tell whether a peer has the same
	notes  *notes
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	leads  chan struct{} // a slot for each file that is being read

	// What is needed and comes within nearBy bytes is waited for, in place of being read before its turn. When no more than
	// endSoon are left of a file, whoever wants the last leaf waits for the whole to be known to be right.
	nearBy, endSoon int64

	mu      sync.Mutex
	closed  bool
	flows   map[string]*flow
	asking  map[string]*asked
	deaf    map[dray.PeerID]time.Time // who does not speak the protocol, until when that is believed
	suspect map[dray.PeerID]time.Time // who fed something wrong, until when it is not followed
	feeds   int
	wg      sync.WaitGroup
}

var _ hub.Library = (*Mirror)(nil)

// New returns a Mirror. The error is that of making Dir.
func New(cfg Config) (*Mirror, error) {
	if cfg.Trusts == nil {
		cfg.Trusts = func(dray.PeerID) bool { return false }
	}
	for _, d := range []struct {
		v     *time.Duration
		ifNot time.Duration
	}{{&cfg.Fresh, time.Minute}, {&cfg.Silence, 10 * time.Second}, {&cfg.Patience, time.Minute}, {&cfg.Linger, time.Minute}} {
		if *d.v == 0 {
			*d.v = d.ifNot
		}
	}
	if cfg.Leads == 0 {
		cfg.Leads = 8
	}
	if cfg.Piece == 0 {
		cfg.Piece = 32 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mirror{
		cfg: cfg, id: digest(cfg.Upstream.base.String())[:16], log: cfg.Log, leads: make(chan struct{}, cfg.Leads),
		nearBy: 8 << 20, endSoon: 64 << 20,
		flows: make(map[string]*flow), asking: make(map[string]*asked),
		deaf: make(map[dray.PeerID]time.Time), suspect: make(map[dray.PeerID]time.Time),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	var err error
	m.notes, err = openNotes(cfg.Dir, m.id)
	return m, err
}

// Close ends what is arriving, which continues another time, and returns when nothing of the Mirror runs any more.
func (m *Mirror) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
	return nil
}

// digest returns a name for a text that is fit for files and comparisons.
func digest(parts ...string) string {
	var room [dray.MaxDigest]byte
	sum, err := dray.Sum(multihash.SHA2_256, 32, room[:0], []byte(strings.Join(parts, "\x00")))
	if err != nil {
		panic("mirror: " + err.Error())
	}
	return hex.EncodeToString(sum)
}

// keyOf names the content of a file. A git blob's id is a weaker digest, so that it counts within its repository only.
func keyOf(repo names.Repo, f names.File) string {
	if f.SHA256 != "" {
		return digest("sha256", f.SHA256)
	}
	return digest("git", repo.Kind.Plural(), repo.Name, f.Blob)
}

// asked is a question that somebody asks already.
type asked struct {
	done chan struct{}
	k    *known
	err  error
}

// Commit implements [hub.Library]. What a commit's id means never changes; what a branch or tag means is asked again after a
// while. When the upstream does not answer, what it said last holds, and else the word of a trusted peer. The commit is shared by
// all who ask for it; its files have no roots.
func (m *Mirror) Commit(ctx context.Context, repo names.Repo, revision string) (*names.Commit, error) {
	k, err := m.commit(ctx, repo, revision, false)
	if err != nil {
		return nil, err
	}
	return &k.Commit, nil
}

// rootOf returns the root of content that is here.
func (m *Mirror) rootOf(ctx context.Context, key string) (cid.Cid, bool) {
	root, ok := m.notes.root(key)
	return root.CID, ok && m.cfg.Blocks.Kept(ctx, root.CID)
}

// commit answers from notes, or asks the upstream and, unless alone, peers; several who ask the same at once ask once.
func (m *Mirror) commit(ctx context.Context, repo names.Repo, revision string, alone bool) (*known, error) {
	if err := checkNames(repo, revision); err != nil {
		return nil, err
	}
	if k, fresh := m.notes.commit(repo, revision, m.cfg.Fresh); fresh {
		return k, nil
	}
	key := digest(repo.Kind.Plural(), repo.Name, revision, fmt.Sprint(alone))
	m.mu.Lock()
	a := m.asking[key]
	if a == nil && !m.closed {
		a = &asked{done: make(chan struct{})}
		m.asking[key] = a
		m.wg.Go(func() {
			a.k, a.err = m.learn(m.ctx, repo, revision, alone)
			m.mu.Lock()
			delete(m.asking, key)
			m.mu.Unlock()
			close(a.done)
		})
	}
	m.mu.Unlock()
	if a == nil {
		return nil, fmt.Errorf("%w: %w", hub.ErrUpstream, dray.ErrClosed)
	}
	select {
	case <-a.done:
		return a.k, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", hub.ErrUpstream, context.Cause(ctx))
	}
}

func (m *Mirror) learn(ctx context.Context, repo names.Repo, revision string, alone bool) (k *known, err error) {
	if !alone {
		k = m.askTrusted(ctx, repo, revision, true)
	}
	if k == nil {
		k, err = m.cfg.Upstream.Commit(ctx, repo, revision)
	}
	if err == nil {
		return k, m.notes.setCommit(k, revision)
	}
	if !errors.Is(err, hub.ErrUpstream) {
		return nil, err
	}
	if old, _ := m.notes.commit(repo, revision, 0); old != nil {
		m.log.Warn("upstream does not answer; what it said before holds", "repo", repo.Name, "revision", revision, "error", err)
		return old, nil
	}
	if alone {
		return nil, err
	}
	if k := m.askTrusted(ctx, repo, revision, false); k != nil {
		m.log.Warn("upstream does not answer; a trusted peer does", "repo", repo.Name, "revision", revision, "error", err)
		return k, m.notes.setCommit(k, revision)
	}
	return nil, err
}

// Open implements [hub.Library].
func (m *Mirror) Open(ctx context.Context, c *names.Commit, f names.File) (hub.Content, error) {
	k, err := m.commit(ctx, c.Repo, c.ID, false)
	if err != nil {
		return nil, err
	}
	t := target{repo: c.Repo, commit: c.ID, restricted: k.Restricted}
	if t.file, err = k.find(f.Path); err != nil {
		return nil, err
	}
	t.key = keyOf(t.repo, t.file)
	return m.open(ctx, t)
}

func (m *Mirror) open(ctx context.Context, t target) (hub.Content, error) {
	if root, ok := m.rootOf(ctx, t.key); ok {
		return m.openKept(ctx, root)
	}
	w, err := m.flow(ctx, t)
	if err != nil {
		return nil, err
	}
	return newContent(ctx, w), nil
}

// find returns the file of a commit with that path.
func (k *known) find(path string) (names.File, error) {
	for _, f := range k.Files {
		if f.Path == path {
			return f, nil
		}
	}
	return names.File{}, fmt.Errorf("%w: %q in %s at %s", hub.ErrEntryNotFound, clip(path, 200), k.Repo.Name, k.ID)
}

// target is a file of a commit.
type target struct {
	repo       names.Repo
	commit     string
	file       names.File
	key        string
	restricted bool
}

// flow returns the flow that brings a file, which has one user more; the caller releases it.
func (m *Mirror) flow(ctx context.Context, t target) (*flow, error) {
	for {
		w, err := m.useFlow(t)
		if err != nil || w.ctx.Err() == nil {
			return w, err
		}
		w.release()
		select {
		case <-w.ended: // it was about to end because nobody used it
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", hub.ErrUpstream, context.Cause(ctx))
		}
	}
}

func (m *Mirror) useFlow(t target) (*flow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fmt.Errorf("%w: %w", hub.ErrUpstream, dray.ErrClosed)
	}
	w := m.flows[t.key]
	if w == nil {
		w = newFlow(m, t)
		m.flows[t.key] = w
		m.wg.Go(w.run)
	}
	w.use()
	return w, nil
}

// forget takes a flow out that has ended.
func (m *Mirror) forget(w *flow) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flows[w.key] == w {
		delete(m.flows, w.key)
	}
}
