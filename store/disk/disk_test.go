package disk_test

import (
	"testing"

	"dray"
	"dray/store/disk"
	"dray/store/storetest"
)

func open(t *testing.T, cfg disk.Config) *disk.Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := disk.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestDisk(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  disk.Config
	}{
		{"Default", disk.Config{}},
		{"EveryByte", disk.Config{SyncBytes: 1, SegmentSize: 64 << 10, OpenFiles: 2}},
		{"NoSmall", disk.Config{SmallBlock: -1, SegmentSize: 300 << 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) dray.Store { return open(t, tt.cfg) })
		})
	}
}
