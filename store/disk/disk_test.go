package disk

import (
	"testing"

	"dray"
	"dray/store/storetest"
)

func openStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestDisk(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"Default", Config{}},
		{"EveryByte", Config{SyncBytes: 1, SegmentSize: 64 << 10, OpenFiles: 2}},
		{"NoSmall", Config{SmallBlock: -1, SegmentSize: 300 << 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) dray.Store { return openStore(t, tt.cfg) })
			storetest.RunGrowing(t, func(t *testing.T, dir string) dray.FileStore {
				cfg := tt.cfg
				cfg.Dir = dir
				return openStore(t, cfg).Files()
			})
		})
	}
}
