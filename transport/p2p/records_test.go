package p2p

import (
	"context"
	"errors"
	"fmt"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

func TestRecordStore(t *testing.T) {
	ctx := context.Background()
	s := newRecords(4)
	put := func(k string) {
		t.Helper()
		if err := s.Put(ctx, ds.NewKey(k), []byte(k)); err != nil {
			t.Fatal(err)
		}
	}
	below := func(prefix string) (keys []string) {
		t.Helper()
		r, err := s.Query(ctx, query.Query{Prefix: prefix, Orders: []query.Order{query.OrderByKey{}}})
		if err != nil {
			t.Fatal(err)
		}
		all, err := r.Rest()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if e.Key != string(e.Value) {
				t.Errorf("%s has the value %s", e.Key, e.Value)
			}
			keys = append(keys, e.Key)
		}
		return keys
	}
	want := func(prefix string, keys ...string) {
		t.Helper()
		if got := below(prefix); fmt.Sprint(got) != fmt.Sprint(keys) {
			t.Errorf("below %s are %v, want %v", prefix, got, keys)
		}
	}
	put("/providers/a/1")
	put("/providers/a/2")
	put("/providers/b/1")
	put("/providers/b/2")
	want("/providers/a", "/providers/a/1", "/providers/a/2")
	want("/providers/", "/providers/a/1", "/providers/a/2", "/providers/b/1", "/providers/b/2")
	want("/providers/c")
	put("/providers/a/1") // anew: it is the youngest now
	put("/providers/c/1") // the oldest goes
	want("/providers/a", "/providers/a/1")
	want("/providers/c", "/providers/c/1")
	if err := s.Delete(ctx, ds.NewKey("/providers/b/1")); err != nil {
		t.Error(err)
	}
	put("/providers/d/1") // there is room: nobody goes
	want("/providers/", "/providers/a/1", "/providers/b/2", "/providers/c/1", "/providers/d/1")
	if _, err := s.Get(ctx, ds.NewKey("/providers/b/1")); !errors.Is(err, ds.ErrNotFound) {
		t.Errorf("what was deleted: %v", err)
	}
	if n, err := s.GetSize(ctx, ds.NewKey("/providers/d/1")); n != 14 || err != nil {
		t.Errorf("size is %d, %v", n, err)
	}
	for range 100 { // ages do not pile up
		put("/providers/d/1")
	}
	if len(s.ages) > 8 || s.n != 4 {
		t.Errorf("%d ages of %d records", len(s.ages), s.n)
	}
}
