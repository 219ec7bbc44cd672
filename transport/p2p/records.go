package p2p

import (
	"context"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// recordStore keeps, in memory, the records of the DHT that this host keeps for others. When it is full, the one that came first
// goes: whoever holds something says so again. Records are looked up by the key above theirs, which names what is held. It is safe
// for concurrent use.
type recordStore struct {
	most int

	mu    sync.Mutex
	under map[ds.Key]map[ds.Key]record // by parent
	n     int
	ages  []aged // in the order in which they came; some are gone, or were written again
	next  uint64
}

type record struct {
	value []byte
	came  uint64
}

type aged struct {
	key  ds.Key
	came uint64
}

var _ ds.Batching = (*recordStore)(nil)

// newRecords makes a store of at most so many records.
func newRecords(most int) *recordStore {
	return &recordStore{most: most, under: make(map[ds.Key]map[ds.Key]record)}
}

// Put implements go-datastore's Write.
func (s *recordStore) Put(_ context.Context, k ds.Key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(k)
	for s.n >= s.most {
		old := s.ages[0]
		s.ages = s.ages[1:]
		if r, ok := s.under[old.key.Parent()][old.key]; ok && r.came == old.came {
			s.remove(old.key)
		}
	}
	parent := k.Parent()
	if s.under[parent] == nil {
		s.under[parent] = make(map[ds.Key]record)
	}
	s.next++
	s.under[parent][k] = record{value, s.next}
	s.n++
	if s.ages = append(s.ages, aged{k, s.next}); len(s.ages) > 2*s.most {
		s.tidy()
	}
	return nil
}

// tidy forgets the ages of records that are gone. The caller holds mu.
func (s *recordStore) tidy() {
	kept := make([]aged, 0, s.n)
	for _, a := range s.ages {
		if r, ok := s.under[a.key.Parent()][a.key]; ok && r.came == a.came {
			kept = append(kept, a)
		}
	}
	s.ages = kept
}

// remove takes a record out, if there is one. The caller holds mu.
func (s *recordStore) remove(k ds.Key) {
	parent := k.Parent()
	if _, ok := s.under[parent][k]; !ok {
		return
	}
	delete(s.under[parent], k)
	s.n--
	if len(s.under[parent]) == 0 {
		delete(s.under, parent)
	}
}

// Delete implements go-datastore's Write.
func (s *recordStore) Delete(_ context.Context, k ds.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(k)
	return nil
}

// Get implements go-datastore's Read.
func (s *recordStore) Get(_ context.Context, k ds.Key) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.under[k.Parent()][k]; ok {
		return r.value, nil
	}
	return nil, ds.ErrNotFound
}

// Has implements go-datastore's Read.
func (s *recordStore) Has(ctx context.Context, k ds.Key) (bool, error) {
	_, err := s.Get(ctx, k)
	return err == nil, nil
}

// GetSize implements go-datastore's Read.
func (s *recordStore) GetSize(ctx context.Context, k ds.Key) (int, error) {
	v, err := s.Get(ctx, k)
	if err != nil {
		return -1, err
	}
	return len(v), nil
}

// Query implements go-datastore's Read. What is asked for below one key costs as much as there is below it.
func (s *recordStore) Query(_ context.Context, q query.Query) (query.Results, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []query.Entry
	add := func(all map[ds.Key]record) {
		for k, r := range all {
			e := query.Entry{Key: k.String(), Size: len(r.value)}
			if !q.KeysOnly {
				e.Value = r.value
			}
			list = append(list, e)
		}
	}
	if above := ds.NewKey(q.Prefix); len(above.List()) >= 2 { // the records about one thing
		add(s.under[above])
	} else {
		for _, all := range s.under {
			add(all)
		}
	}
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, list)), nil
}

// Sync implements go-datastore's Write. There is nothing to wait for.
func (s *recordStore) Sync(context.Context, ds.Key) error { return nil }

// Close implements io.Closer.
func (s *recordStore) Close() error { return nil }

// Batch implements go-datastore's Batching.
func (s *recordStore) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(s), nil }
