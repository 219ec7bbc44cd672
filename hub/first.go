package hub

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"dray/names"
)

// First returns a Library that asks several, in order, and answers with what the first one has. A Library that fails otherwise
// than by not having something is passed over, and its error returned if no other has it. What is opened is opened by the one
// whose commit it is.
func First(libraries ...Library) Library {
	return &first{list: libraries, by: make(map[*names.Commit]Library)}
}

type first struct {
	list []Library

	mu    sync.Mutex
	by    map[*names.Commit]Library // who has returned a commit; bounded, and only a short cut
	order []*names.Commit           // of by, oldest first
}

// rememberedCommits is how many commits are known by who has returned them.
const rememberedCommits = 1024

func (l *first) Commit(ctx context.Context, repo names.Repo, revision string) (*names.Commit, error) {
	var worst error
	for _, x := range l.list {
		c, err := x.Commit(ctx, repo, revision)
		if err == nil {
			l.remember(c, x)
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if worst == nil || weight(err) > weight(worst) {
			worst = err
		}
	}
	return nil, cmp.Or(worst, error(ErrRepoNotFound))
}

// weight says how much an error tells: that something is there tells more than that nothing is.
func weight(err error) int {
	switch {
	case errors.Is(err, ErrRepoNotFound):
		return 0
	case errors.Is(err, ErrRevisionNotFound):
		return 1
	case errors.Is(err, ErrUpstream):
		return 2
	}
	return 3
}

func (l *first) remember(c *names.Commit, x Library) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.by[c]; !known {
		l.order = append(l.order, c)
	}
	l.by[c] = x
	if len(l.order) > rememberedCommits {
		delete(l.by, l.order[0])
		l.order = slices.Delete(l.order, 0, 1)
	}
}

func (l *first) Open(ctx context.Context, c *names.Commit, f names.File) (Content, error) {
	l.mu.Lock()
	x := l.by[c]
	l.mu.Unlock()
	if x != nil {
		return x.Open(ctx, c, f)
	}
	err := error(ErrEntryNotFound)
	for _, x := range l.list {
		var r Content
		if r, err = x.Open(ctx, c, f); err == nil {
			return r, nil
		}
	}
	return nil, err
}

// List joins what all have; of a repository that several have, the first.
func (l *first) List(ctx context.Context) ([]Listing, error) {
	var all []Listing
	for _, x := range l.list {
		lister, ok := x.(Lister)
		if !ok {
			continue
		}
		list, err := lister.List(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if !slices.ContainsFunc(all, func(o Listing) bool { return o.Repo == r.Repo }) {
				all = append(all, r)
			}
		}
	}
	slices.SortFunc(all, func(a, b Listing) int { return compareRepos(a.Repo, b.Repo) })
	return all, nil
}

func compareRepos(a, b names.Repo) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}
