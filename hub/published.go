package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/names"
)

// Swarm is what a [Published] knows of others.
type Swarm interface {
	// Ask asks peers for their records about a question and calls heard with what each answers, one at a time. Nothing of it is
	// verified yet. It returns when all have answered, or ctx ends.
	Ask(ctx context.Context, q *names.Question, heard func(from dray.PeerID, records []*names.Record))

	// Blocks calls use with a Getter for what lies under root, of which some peers have told. The Getter, and the context that
	// use is given, are good until it returns; the context ends when it is hopeless.
	Blocks(ctx context.Context, root cid.Cid, from []dray.PeerID, use func(context.Context, dray.Getter) error) error

	// Open returns the content of a file. Under is what it was found under, of which some peers have told.
	Open(ctx context.Context, under, file cid.Cid, size int64, from []dray.PeerID) (Content, error)
}

// PublishedConfig says what a Published goes by. Swarm and Verify are required.
type PublishedConfig struct {
	// Swarm is how others are asked.
	Swarm Swarm
	// Verify checks signatures.
	Verify names.Verifier
	// Trust returns who is believed, as of now. If nil, nobody is.
	Trust func() *names.Trust
	// Self is this host's key: where it says what a revision is, nobody else is asked.
	Self dray.PeerID
	// Closed reports whether a root is not for everybody; such repositories are not served here. If nil, none is.
	Closed func(root cid.Cid) bool
	// Changed is called after records were learnt, with what others have said until then. It must not block. If nil, nobody is.
	Changed func()
	// Fresh is how long an answer is good, Absent how long nobody is asked again for what nobody has. If zero, 10 and 3 seconds.
	Fresh, Absent time.Duration
	// Patience is how long peers are waited for, and Linger how much longer when one who is trusted has answered, in case
	// another knows something newer. If zero, 3 seconds and 150 milliseconds.
	Patience, Linger time.Duration
}

// Published is a [Library] of what was published under names, here or by peers, as far as the keys that say so are trusted. It is
// safe for concurrent use.
type Published struct {
	cfg PublishedConfig

	mu     sync.Mutex
	book   names.Book
	told   recent[[]dray.PeerID]     // who has told of a commit's block
	asked  recent[asked]             // when what was asked
	asking map[names.Question]*query // questions that are out

	commits recent[*names.Commit] // by block
	heads   recent[cid.Cid]       // by commitKey, the block of the commit
}

// asked is what came of a question.
type asked struct {
	at time.Time
	// took is how long it took: some peers may be slow.
	took time.Duration
	// strangers are keys that answered and are not trusted.
	strangers []dray.PeerID
}

// query is a question that is out: others who have it, too, wait for its end.
type query struct{ done chan struct{} }

// slowness is how many times as long as it took to ask nobody is asked again, so that slow peers cost a twentieth of the time.
const slowness = 20

// good reports whether the answer is good still, if it would be for that long had it come at once.
func (a *asked) good(d time.Duration) bool {
	return !a.at.IsZero() && time.Since(a.at) < max(d, slowness*a.took)
}

const (
	rememberedAnswers = 4096
	mostTellers       = 32 // of one commit
)

// NewPublished returns a Published that knows of nothing yet.
func NewPublished(cfg PublishedConfig) *Published {
	cfg.Fresh = cmp.Or(cfg.Fresh, 10*time.Second)
	cfg.Absent = cmp.Or(cfg.Absent, 3*time.Second)
	cfg.Patience = cmp.Or(cfg.Patience, 3*time.Second)
	cfg.Linger = cmp.Or(cfg.Linger, 150*time.Millisecond)
	if cfg.Trust == nil {
		cfg.Trust = func() *names.Trust { return new(names.Trust) }
	}
	if cfg.Closed == nil {
		cfg.Closed = func(cid.Cid) bool { return false }
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	p := &Published{cfg: cfg, asking: make(map[names.Question]*query)}
	p.told.most, p.asked.most, p.heads.most = rememberedAnswers, rememberedAnswers, rememberedAnswers
	p.commits.most, p.commits.weigh = rememberedFiles, func(c *names.Commit) int { return len(c.Files) + 1000 }
	return p
}

// Learn adds records that were verified, such as this host's own.
func (p *Published) Learn(records ...*names.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range records {
		p.book.Put(r)
	}
}

// Forget removes the records for which gone returns true, and returns how many those were.
func (p *Published) Forget(gone func(*names.Record) bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.book.Delete(gone)
}

// Records returns all records, in an order that depends on nothing else.
func (p *Published) Records() []*names.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.book.Records()
}

// Answer returns what a peer is told who asks. Private records are told if may allows it.
func (p *Published) Answer(q *names.Question, may func(*names.Record) bool) []*names.Record {
	p.mu.Lock()
	list := p.book.Answer(time.Now(), q)
	p.mu.Unlock()
	return slices.DeleteFunc(list, func(r *names.Record) bool { return (r.Private || p.closed(r)) && !may(r) })
}

// closed reports whether what a record names is not for everybody here.
func (p *Published) closed(r *names.Record) bool {
	return p.cfg.Closed(r.Block) || r.Dir.Defined() && p.cfg.Closed(r.Dir)
}

// Record returns the record that says what a revision is. The error is one of a Library.
func (p *Published) Record(ctx context.Context, repo names.Repo, revision string) (*names.Record, error) {
	q := names.Question{Repo: repo, Revision: revision}
	if err := repo.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRepoNotFound, err)
	}
	if err := names.CheckRevision(revision); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRevisionNotFound, err)
	}
	r, fresh := p.known(&q)
	if r != nil && fresh {
		return r, nil
	}
	var wg sync.WaitGroup
	if revision != mainRevision && !p.knows(repo) { // is it the repository that is not there, or the revision?
		wg.Go(func() { _ = p.ask(ctx, names.Question{Repo: repo, Revision: mainRevision}) }) // ctx's, which the other returns
	}
	err := p.ask(ctx, q)
	wg.Wait()
	if r, _ = p.known(&q); r != nil {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	return nil, p.missing(&q)
}

// knows reports whether anything is known of a repository that is to be believed.
func (p *Published) knows(repo names.Repo) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.book.Knows(time.Now(), repo, p.cfg.Trust())
}

// known returns what is known of a question, and whether nobody need be asked about it now.
func (p *Published) known(q *names.Question) (*names.Record, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, _ := p.book.Best(time.Now(), q, p.cfg.Trust())
	if r == nil {
		return nil, false
	}
	a, _ := p.asked.get(questionKey(q))
	return r, r.Key == p.cfg.Self || names.IsCommit(q.Revision) || a.good(p.cfg.Fresh)
}

func questionKey(q *names.Question) string { return q.Repo.String() + "@" + q.Revision }

// missing is the error for what nobody who is trusted has.
func (p *Published) missing(q *names.Question) error {
	if p.knows(q.Repo) {
		return fmt.Errorf("%w: %v has no branch, tag or commit %q that is known here", ErrRevisionNotFound, q.Repo, q.Revision)
	}
	var strangers []string
	for _, revision := range []string{q.Revision, mainRevision} {
		a, _ := p.asked.get(questionKey(&names.Question{Repo: q.Repo, Revision: revision}))
		for _, k := range a.strangers {
			if s := k.String(); !slices.Contains(strangers, s) {
				strangers = append(strangers, s)
			}
		}
	}
	if len(strangers) == 0 {
		return fmt.Errorf("%w: nobody who can be asked publishes %v", ErrRepoNotFound, q.Repo)
	}
	slices.Sort(strangers)
	return fmt.Errorf("%w: %v is published by %s, which is not trusted here; to trust it: dray trust add %s --name '%v'",
		ErrRepoNotFound, q.Repo, strings.Join(strangers, " and by "), strangers[0], q.Repo)
}

// ask asks peers, unless they were asked just now. It waits for an answer to the same question that is under way.
func (p *Published) ask(ctx context.Context, q names.Question) error {
	key := questionKey(&q)
	p.mu.Lock()
	if x := p.asking[q]; x != nil {
		p.mu.Unlock()
		select {
		case <-x.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if a, _ := p.asked.get(key); a.good(p.cfg.Absent) && !p.befriended(&q, a.strangers) {
		p.mu.Unlock()
		return nil
	}
	x := &query{done: make(chan struct{})}
	p.asking[q] = x
	p.mu.Unlock()

	// Others may wait for the answer, so that it does not end with whoever asked first.
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.Patience)
	defer cancel()
	var (
		found asked
		once  sync.Once
		timer *time.Timer
		fresh bool
	)
	start := time.Now()
	p.cfg.Swarm.Ask(wait, &q, func(from dray.PeerID, records []*names.Record) {
		for _, r := range records {
			switch known, trusted := p.hear(&q, from, r); {
			case trusted:
				fresh = fresh || known
				once.Do(func() { timer = time.AfterFunc(p.cfg.Linger, cancel) })
			case known && !slices.Contains(found.strangers, r.Key) && len(found.strangers) < mostTellers:
				found.strangers = append(found.strangers, r.Key)
			}
		}
	})
	if timer != nil {
		timer.Stop()
	}
	p.mu.Lock()
	found.at, found.took = time.Now(), time.Since(start)
	p.asked.put(key, found)
	delete(p.asking, q)
	close(x.done)
	p.mu.Unlock()
	if fresh {
		p.cfg.Changed()
	}
	return nil
}

// befriended reports whether one of those who were strangers is trusted by now.
func (p *Published) befriended(q *names.Question, strangers []dray.PeerID) bool {
	return slices.ContainsFunc(strangers, func(k dray.PeerID) bool {
		_, ok := p.cfg.Trust().Rank(k, q.Repo)
		return ok
	})
}

// hear looks at a record that a peer has told. For one that is trusted it returns whether it was news, and for one that is not,
// whether its signature is right.
func (p *Published) hear(q *names.Question, from dray.PeerID, r *names.Record) (known, trusted bool) {
	if !r.Answers(q) || r.Over(time.Now()) || r.Verify(p.cfg.Verify) != nil {
		return false, false
	}
	if _, trusted = p.cfg.Trust().Rank(r.Key, r.Repo); !trusted {
		return true, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	tellers, _ := p.told.get(r.Block.KeyString())
	if !slices.Contains(tellers, from) && len(tellers) < mostTellers {
		p.told.put(r.Block.KeyString(), append(slices.Clone(tellers), from))
	}
	if r.Key == p.cfg.Self {
		return false, true // what this host has said it knows best, and what it has taken back stays so
	}
	return p.book.Put(r), true
}

// Commit implements [Library].
func (p *Published) Commit(ctx context.Context, repo names.Repo, revision string) (*names.Commit, error) {
	r, err := p.Record(ctx, repo, revision)
	if err != nil {
		return nil, err
	}
	if p.closed(r) {
		return nil, fmt.Errorf("%w: %v is private here, and private content is not served over HTTP; get it with its ticket, "+
			"or from the host of a member", ErrGated, repo)
	}
	return p.load(ctx, r)
}

// load gets the commit that a record names.
func (p *Published) load(ctx context.Context, r *names.Record) (*names.Commit, error) {
	key := r.Block.KeyString()
	if c, ok := p.commits.get(key); ok {
		return c, nil
	}
	var c *names.Commit
	err := p.cfg.Swarm.Blocks(ctx, r.Block, p.tellers(r.Block), func(ctx context.Context, g dray.Getter) (err error) {
		c, err = names.ReadCommit(ctx, g, r.Block)
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: the list of files of %v at %s cannot be had: %w", ErrUpstream, r.Repo, r.Revision, err)
	case c.ID != r.Commit || c.Repo != r.Repo:
		return nil, fmt.Errorf("%w: %v has signed for %v that it is another repository's commit", ErrUpstream, r.Key, r.Repo)
	}
	p.commits.put(key, c)
	p.heads.put(commitKey(c), r.Block)
	return c, nil
}

func (p *Published) tellers(block cid.Cid) []dray.PeerID {
	list, _ := p.told.get(block.KeyString())
	return list
}

// Open implements [Library].
func (p *Published) Open(ctx context.Context, c *names.Commit, f names.File) (Content, error) {
	if !f.Root.Defined() {
		return nil, fmt.Errorf("%w: nobody has all of %q yet", ErrEntryNotFound, f.Path)
	}
	under := f.Root
	if c.Dir.Defined() {
		under = c.Dir
	}
	if p.cfg.Closed(under) {
		return nil, fmt.Errorf("%w: %v is private here", ErrGated, c.Repo)
	}
	block, _ := p.heads.get(commitKey(c))
	r, err := p.cfg.Swarm.Open(ctx, under, f.Root, f.Size, p.tellers(block))
	if err != nil && !errors.Is(err, ErrEntryNotFound) {
		err = fmt.Errorf("%w: %w", ErrUpstream, err)
	}
	return r, err
}

// List implements [Lister].
func (p *Published) List(context.Context) ([]Listing, error) {
	p.mu.Lock()
	records, trust, now := p.book.Records(), p.cfg.Trust(), time.Now()
	p.mu.Unlock()
	var all []Listing
	for _, r := range records {
		if _, ok := trust.Rank(r.Key, r.Repo); !ok || r.Over(now) || p.closed(r) {
			continue
		}
		if len(all) == 0 || all[len(all)-1].Repo != r.Repo {
			all = append(all, Listing{Repo: r.Repo})
		}
		x := &all[len(all)-1]
		ref := Ref{Name: r.Revision, Commit: r.Commit, Time: r.Time}
		x.Commits = append(x.Commits, Ref{Commit: r.Commit, Time: r.Time})
		if slices.ContainsFunc(x.Refs, func(o Ref) bool { return o.Name == r.Revision }) {
			continue
		}
		p.mu.Lock()
		best, _ := p.book.Best(now, &names.Question{Repo: r.Repo, Revision: r.Revision}, trust)
		p.mu.Unlock()
		if best != nil {
			ref.Commit, ref.Time = best.Commit, best.Time
			x.Refs = append(x.Refs, ref)
		}
	}
	for i := range all {
		slices.SortStableFunc(all[i].Commits, func(a, b Ref) int { return b.Time.Compare(a.Time) })
		all[i].Commits = slices.CompactFunc(all[i].Commits, func(a, b Ref) bool { return a.Commit == b.Commit })
		slices.SortFunc(all[i].Refs, func(a, b Ref) int { return cmp.Compare(a.Name, b.Name) })
	}
	return all, nil
}

var (
	_ Library = (*Published)(nil)
	_ Lister  = (*Published)(nil)
)
