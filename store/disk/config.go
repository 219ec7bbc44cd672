package disk

import (
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
)

// Config says where a store lies and how it works. Only Dir must be set.
type Config struct {
	// Dir is the store's directory; it is created if it does not exist. One process at a time may have it open.
	Dir string
	// SmallBlock is the size in bytes up to which a block lies in the index. If zero, 16 KiB; if negative, none does.
	SmallBlock int
	// SegmentSize is the size in bytes at which a segment is full. If zero, 256 MiB.
	SegmentSize int64
	// SyncBytes is how many bytes may be written before the committer syncs them. If zero, 32 MiB.
	SyncBytes int64
	// SyncInterval is how long a block may be written but not synced. If zero, one second.
	SyncInterval time.Duration
	// OpenFiles is how many files are kept open for reading. If zero, 256.
	OpenFiles int
	// Split takes a leaf block of c's codec apart into the framing before the file content, the content, and the framing
	// after it, as slices of block (unixfs.SplitLeaf). If nil, every leaf is taken to be content only; other leaves are
	// then not written to growing files.
	Split func(c cid.Cid, block []byte) (head, content, tail []byte, err error)
	// Frame gives the bytes that stand before and after size bytes of content in a leaf of c's codec. It is used to
	// recognise content that is in a growing file already. If nil, leaves with framing are not recognised and are fetched
	// again.
	Frame func(c cid.Cid, size int64) (head, tail []byte, err error)
	// FS does the operations on data files. If nil, the operating system does.
	FS FS
	// IndexFS does those of the index. If nil, the operating system does.
	IndexFS vfs.FS
	// Lost, if set, is called when a block turned out not to be where it was thought to be. It must not wait.
	Lost func()
	// Log receives what the store notices by itself. If nil, nothing is logged.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.SmallBlock == 0 {
		c.SmallBlock = 16 << 10
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = 256 << 20
	}
	if c.SyncBytes == 0 {
		c.SyncBytes = 32 << 20
	}
	if c.SyncInterval == 0 {
		c.SyncInterval = time.Second
	}
	if c.OpenFiles == 0 {
		c.OpenFiles = 256
	}
	if c.FS == nil {
		c.FS = osFS{}
	}
	if c.IndexFS == nil {
		c.IndexFS = vfs.Default
	}
	if c.Lost == nil {
		c.Lost = func() {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
