package node

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/wire"
)

// job is one thing for a store worker: look-ups and reads, or a walk to go on with, a root whose manifest is asked for, a
// sync, or a write.
type job struct {
	loads  []exchange.Load
	walk   exchange.WalkLoad
	walker *walker
	root   cid.Cid
	sync   bool
	store  dray.Block
	cuts   []*cutter // who wants parts of the block
	keep   bool      // the block itself is to be stored
}

// work is a store worker.
func (n *Node) work() {
	for {
		select {
		case <-n.done:
			return
		case j := <-n.jobs:
			switch {
			case len(j.loads) > 0:
				n.load(j.loads)
			case j.walker != nil:
				n.walk(j.walk, j.walker)
			case j.root.Defined():
				n.manifest(j.root)
			case j.sync:
				n.sync()
			default:
				n.write(j)
			}
		}
	}
}

// loaded is the answer to one Load.
type loaded struct {
	load  exchange.Load
	size  int64
	frame []byte // wire.MaxBlockHeader bytes of room, then the block
	err   error
}

func (n *Node) load(loads []exchange.Load) {
	out := make([]loaded, 0, len(loads))
	for _, l := range loads {
		a := loaded{load: l}
		if l.Stat {
			a.size, a.err = n.store.Stat(n.ctx, l.CID)
		} else {
			began := time.Now()
			a.frame, a.err = n.read(l)
			n.vitals.readDone(began, l.CID, a.err)
			n.loads.read.add(int64(len(a.frame)), time.Since(began))
		}
		out = append(out, a)
	}
	n.do(func() {
		for _, a := range out {
			if a.load.Stat {
				n.engine.Loaded(n.now(), a.load, a.size, nil, a.err)
				continue
			}
			if a.err != nil {
				n.cfg.Log.Debug("cannot read a block to serve", "cid", a.load.CID, "err", a.err)
				n.engine.Removed(n.now(), a.load.CID)
			}
			if !n.engine.Loaded(n.now(), a.load, 0, a.frame, a.err) {
				n.buffers.put(a.frame)
			}
		}
	})
}

// read reads a block behind room for its header, so that both are written at once.
func (n *Node) read(l exchange.Load) ([]byte, error) {
	size, err := n.store.Stat(n.ctx, l.CID)
	if err != nil {
		return nil, err
	}
	buf := n.buffers.get(int(size) + wire.MaxBlockHeader)
	if n.raw != nil {
		data, err := n.raw.GetRaw(n.ctx, l.CID, buf[wire.MaxBlockHeader:])
		if err != nil {
			n.buffers.put(buf)
			return nil, err
		}
		return withRoom(buf, data), nil
	}
	b, err := n.store.Get(n.ctx, l.CID)
	if err != nil {
		n.buffers.put(buf)
		return nil, err
	}
	return withRoom(buf, b.Data()), nil
}

// withRoom returns data behind room for a header: in buf when it lies there already, else copied.
func withRoom(buf, data []byte) []byte {
	room := wire.MaxBlockHeader
	if len(data) > 0 && len(data) <= len(buf)-room && &data[0] == &buf[room] {
		return buf[:room+len(data)]
	}
	return append(buf[:room], data...)
}

// write puts a block that came from a peer into the store, or cuts it up for those who want parts only.
func (n *Node) write(j job) {
	b := j.store
	for _, c := range j.cuts {
		c.err, c.called = c.fill(b), true
	}
	var err error
	if j.keep {
		began := time.Now()
		err = n.store.Put(context.WithoutCancel(n.ctx), b)
		n.vitals.wroteDone(began, err)
		n.loads.write.add(int64(b.Size()), time.Since(began))
	}
	n.do(func() {
		if err == nil && !j.keep && n.engine.Askers(b.CID()) > len(j.cuts) {
			n.queue = append(n.queue, job{store: b, keep: true}) // somebody came who may want it whole
			return
		}
		n.engine.Stored(n.now(), b, err)
		if err == nil && !j.keep {
			n.engine.Removed(n.now(), b.CID())
		}
		if err != nil {
			n.cfg.Log.Error("cannot write a block", "cid", b.CID(), "err", err)
		}
		n.settled = append(n.settled, b)
	})
}
