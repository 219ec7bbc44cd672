package disk

import (
	"context"

	"dray"
)

// Files returns the store as a [dray.FileStore]: the same store, with Grow and Reference returning the root package's
// interfaces.
func (s *Store) Files() dray.FileStore { return fileStore{s} }

type fileStore struct{ *Store }

func (s fileStore) Grow(ctx context.Context, path string, size int64) (dray.Growing, error) {
	g, err := s.Store.Grow(ctx, path, size)
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (s fileStore) GrowAs(ctx context.Context, path string, as dray.Growth) (dray.Growing, error) {
	g, err := s.Store.GrowAs(ctx, path, as)
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (s fileStore) Reference(ctx context.Context, path string) (dray.Reference, error) {
	r, err := s.Store.Reference(ctx, path)
	if err != nil {
		return nil, err
	}
	return r, nil
}

var _ dray.RawGetter = fileStore{}
