package names

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"dray"
)

// Book holds records that were verified: of each key, repository and revision the newest, and earlier ones that are about other
// commits, so that a commit is found by its id. It is bounded. The zero Book is empty, with the default bounds. It is not safe for
// concurrent use.
type Book struct {
	// Most is how many records it holds; beyond them those that were signed first go. If zero, 10,000.
	Most int

	repos map[Repo][]*Record
	count int
}

// mostOfOne is how many records of one key about one repository are kept.
const mostOfOne = 1000

// Put adds a record and reports whether the Book did not have it, or a newer one in its place. A record that counts no longer
// than an older one does not change which is newest.
func (b *Book) Put(r *Record) bool {
	if b.repos == nil {
		b.repos = make(map[Repo][]*Record)
	}
	own := 0
	for i, o := range b.repos[r.Repo] {
		if o.Key != r.Key {
			continue
		}
		own++
		if o.Revision == r.Revision && o.Commit == r.Commit {
			if o.Sequence >= r.Sequence {
				return false
			}
			b.repos[r.Repo][i] = r
			return true
		}
	}
	b.repos[r.Repo] = append(b.repos[r.Repo], r)
	b.count++
	if own >= mostOfOne {
		b.drop(func(o *Record) bool { return o.Repo == r.Repo && o.Key == r.Key && o != r })
	}
	most := b.Most
	if most == 0 {
		most = 10_000
	}
	if b.count > most {
		b.drop(func(o *Record) bool { return o != r })
	}
	return true
}

// drop removes the record that was signed first among those that may go.
func (b *Book) drop(may func(*Record) bool) {
	var first *Record
	for _, list := range b.repos {
		for _, o := range list {
			if may(o) && (first == nil || o.Time.Before(first.Time) || o.Time.Equal(first.Time) && o.compare(first) < 0) {
				first = o
			}
		}
	}
	if first != nil {
		b.Delete(func(o *Record) bool { return o == first })
	}
}

// compare orders records for whoever wants an order.
func (r *Record) compare(o *Record) int {
	return cmp.Or(
		cmp.Compare(r.Repo.Kind, o.Repo.Kind), strings.Compare(r.Repo.Name, o.Repo.Name), strings.Compare(r.Revision, o.Revision),
		cmp.Compare(r.Key, o.Key), cmp.Compare(r.Sequence, o.Sequence), strings.Compare(r.Commit, o.Commit),
	)
}

// Delete removes the records for which gone returns true, and returns how many those were.
func (b *Book) Delete(gone func(*Record) bool) int {
	before := b.count
	for repo, list := range b.repos {
		list = slices.DeleteFunc(list, func(r *Record) bool {
			if gone(r) {
				b.count--
				return true
			}
			return false
		})
		if b.repos[repo] = list; len(list) == 0 {
			delete(b.repos, repo)
		}
	}
	return before - b.count
}

// Len returns how many records there are.
func (b *Book) Len() int { return b.count }

// Records returns all records, in an order that depends on nothing else.
func (b *Book) Records() []*Record {
	list := make([]*Record, 0, b.count)
	for _, of := range b.repos {
		list = append(list, of...)
	}
	slices.SortFunc(list, (*Record).compare)
	return list
}

// Answer returns the records that answer a question by now: of each key the newest, at most [MaxAnswer].
func (b *Book) Answer(now time.Time, q *Question) []*Record {
	newest := make(map[dray.PeerID]*Record)
	for _, r := range b.repos[q.Repo] {
		if o := newest[r.Key]; r.Answers(q) && !r.Over(now) && (o == nil || r.Sequence > o.Sequence) {
			newest[r.Key] = r
		}
	}
	list := slices.SortedFunc(maps.Values(newest), (*Record).compare)
	return list[:min(len(list), MaxAnswer)]
}

// Best returns the record that counts for a question by now: that of the key which the trust names first, and the keys that
// answer and are not trusted. It returns nil when nobody who is trusted answers.
func (b *Book) Best(now time.Time, q *Question, t *Trust) (best *Record, others []dray.PeerID) {
	rank := 0
	for _, r := range b.Answer(now, q) {
		i, ok := t.Rank(r.Key, r.Repo)
		switch {
		case !ok:
			others = append(others, r.Key)
		case best == nil || i < rank:
			best, rank = r, i
		}
	}
	return best, others
}

// Knows reports whether the Book has a record about a repository, by now and of a key that is trusted with it.
func (b *Book) Knows(now time.Time, repo Repo, t *Trust) bool {
	return slices.ContainsFunc(b.repos[repo], func(r *Record) bool {
		_, ok := t.Rank(r.Key, repo)
		return ok && !r.Over(now)
	})
}

// Next returns the sequence number that a key's next record about a revision is to have.
func (b *Book) Next(key dray.PeerID, repo Repo, revision string) uint64 {
	next := uint64(1)
	for _, r := range b.repos[repo] {
		if r.Key == key && r.Revision == revision {
			next = max(next, r.Sequence+1)
		}
	}
	return next
}
