package node

import (
	"sync/atomic"
	"time"
)

// Load counts what a Node's parts have done since it was made. The difference of two says what a time was spent on.
type Load struct {
	// Received is how many bytes came from peers, over all streams and whatever they were.
	Received int64
	// Written and Read are bytes of blocks that were written to and read from the store for peers, WriteTime and ReadTime how
	// long that took, added up over the workers.
	Written, Read       int64
	WriteTime, ReadTime time.Duration
	// Hashed is how many bytes were hashed, and HashTime how long that took, added up over the workers.
	Hashed   int64
	HashTime time.Duration
	// Behind is how long streams were not read because so much that had come was not hashed and written yet, added up over
	// the streams.
	Behind time.Duration
	// LoopIdle is how long the loop had nothing to do.
	LoopIdle time.Duration
}

// Minus returns what was done between b and l.
func (l Load) Minus(b Load) Load {
	return Load{
		Received: l.Received - b.Received,
		Written:  l.Written - b.Written, Read: l.Read - b.Read, WriteTime: l.WriteTime - b.WriteTime, ReadTime: l.ReadTime - b.ReadTime,
		Hashed: l.Hashed - b.Hashed, HashTime: l.HashTime - b.HashTime,
		Behind: l.Behind - b.Behind, LoopIdle: l.LoopIdle - b.LoopIdle,
	}
}

// Load returns what the Node's parts have done so far.
func (n *Node) Load() Load {
	c := &n.loads
	l := Load{
		Received: c.received.Load(),
		Written:  c.write.bytes.Load(), WriteTime: time.Duration(c.write.took.Load()),
		Read: c.read.bytes.Load(), ReadTime: time.Duration(c.read.took.Load()),
		Behind: time.Duration(c.behind.Load()), LoopIdle: time.Duration(c.idle.Load()),
	}
	l.Hashed, l.HashTime = n.hash.Stats()
	l.HashTime = max(l.HashTime-time.Duration(c.told.Load()), 0)
	return l
}

// loads are the counters behind Load.
type loads struct {
	received     atomic.Int64
	write, read  timed
	behind, idle atomic.Int64
	told         atomic.Int64 // time that hash workers waited for the loop to take what they had done
}

// timed counts bytes and the time that they took.
type timed struct{ bytes, took atomic.Int64 }

func (t *timed) add(bytes int64, took time.Duration) {
	t.bytes.Add(bytes)
	t.took.Add(int64(took))
}
