package node

import (
	"time"

	"dray"
	"dray/exchange"
)

// turn is how many inputs are taken before the engine is asked what to do: enough to let a burst be answered by few
// messages, few enough to answer soon.
const turn = 64

// loop owns the engine: it feeds it inputs and the time, and carries out what it says.
func (n *Node) loop() {
	defer n.finish()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		n.carryOut(n.engine.Ready(), timer)
		var jobs chan job
		var next job
		if n.head < len(n.queue) {
			jobs, next = n.jobs, n.queue[n.head]
		}
		idle := time.Now()
		select {
		case <-n.done:
			return
		case f := <-n.inputs:
			n.loads.idle.Add(int64(time.Since(idle)))
			f()
			n.drain()
		case jobs <- next:
			n.loads.idle.Add(int64(time.Since(idle)))
			n.popJob()
			continue // nothing changed for the engine, but Ready is cheap
		case <-timer.C:
			n.loads.idle.Add(int64(time.Since(idle)))
			n.engine.Advance(n.now())
		}
	}
}

// drain takes more inputs while there are any, up to a turn's worth.
func (n *Node) drain() {
	for range turn {
		select {
		case f := <-n.inputs:
			f()
		default:
			return
		}
	}
}

func (n *Node) popJob() {
	n.queue[n.head] = job{}
	n.head++
	if n.head == len(n.queue) {
		n.queue, n.head = n.queue[:0], 0
	} else if n.head >= 1024 && n.head*2 >= len(n.queue) {
		k := copy(n.queue, n.queue[n.head:])
		clear(n.queue[k:])
		n.queue, n.head = n.queue[:k], 0
	}
}

// carryOut does what the engine says.
func (n *Node) carryOut(r *exchange.Ready, timer *time.Timer) {
	for _, s := range r.Sends {
		if l := n.links[s.Peer]; l != nil {
			if l.voice.say(s.Message.Clone()) { // has room: the engine sends the next only after Sent
				l.out.Wake()
			} else {
				n.cfg.Log.Error("a link has no room for a message", "peer", s.Peer)
				n.closeLink(l)
			}
		}
	}
	n.pushBlocks(r.Blocks)
	for i := 0; i < len(r.Loads); {
		k := together(r.Loads[i:])
		n.queue = append(n.queue, job{loads: append([]exchange.Load(nil), r.Loads[i:i+k]...)})
		i += k
	}
	for _, s := range r.Stores {
		n.queue = append(n.queue, n.storing(s.Block))
	}
	for _, m := range r.Manifests {
		n.queue = append(n.queue, job{root: m.Root})
	}
	for _, w := range r.Walks {
		n.goOn(w)
	}
	for _, id := range r.WalksEnded {
		if s := n.sinks[id]; s != nil && s.walked != nil {
			s.walked()
		}
	}
	if r.Sync {
		n.queue = append(n.queue, job{sync: true})
	}
	for _, d := range r.Delivers {
		n.deliver(d)
	}
	for _, x := range r.Repeats {
		n.transfers.repeated(x)
	}
	n.settled = append(n.settled, r.Discards...)
	for i, b := range n.settled {
		n.unframe(b)
		n.settled[i] = dray.Block{}
	}
	n.settled = n.settled[:0]
	for _, f := range r.Finds {
		n.find(f)
	}
	for _, id := range r.Hangups {
		n.event(GaveUp{Peer: id})
		if l := n.links[id]; l != nil {
			n.closeLink(l)
		}
	}
	for _, id := range r.Dials {
		n.dial(id)
	}
	for _, id := range r.Probes {
		n.probe(id)
	}
	for _, d := range r.Drops {
		n.event(PeerBanned{Peer: d.Peer, Reason: d.Violation.What})
		if l := n.links[d.Peer]; l != nil {
			n.closeLink(l)
		}
	}
	for _, s := range r.Sessions {
		n.sessionEnded(s)
	}
	wake := r.Wake
	if look := n.onlook(); look > 0 && (wake == 0 || look < wake) {
		wake = look
	}
	if wake == 0 {
		timer.Reset(time.Hour)
	} else {
		timer.Reset(max(wake-n.now(), 0))
	}
}

// together returns how many loads from the front on one worker takes at once: look-ups, or small blocks for one peer, so
// that they can be sent together.
func together(loads []exchange.Load) int {
	k, size := 1, loads[0].Size
	for ; k < len(loads) && k < 64 && loads[k].Stat == loads[0].Stat; k++ {
		if size += loads[k].Size; !loads[k].Stat && (loads[k].Peer != loads[0].Peer || size > batchBytes) {
			break
		}
	}
	return k
}

// pushBlocks hands blocks to their peers' writers, small ones that go to one peer together.
func (n *Node) pushBlocks(list []exchange.BlockSend) {
	for i := 0; i < len(list); {
		k, size := i+1, len(list[i].Data)
		for ; k < len(list) && list[k].Peer == list[i].Peer; k++ {
			if size += len(list[k].Data); size > batchBytes {
				break
			}
		}
		if l := n.links[list[i].Peer]; l != nil {
			batch := make([]outBlock, 0, k-i)
			for _, b := range list[i:k] {
				batch = append(batch, outBlock{cid: b.CID, frame: b.Data, guarded: b.Guarded, revoked: l.revoked.Load()})
			}
			select {
			case l.blocks <- batch: // has room: the engine keeps at most so many wants of a peer
			default:
				n.cfg.Log.Error("a link has no room for blocks", "peer", l.peer)
				n.closeLink(l)
			}
		}
		i = k
	}
}

// finish answers everybody who still waits, when the Node is closed.
func (n *Node) finish() {
	for key, list := range n.waiters {
		for _, w := range list {
			w.answer(dray.Block{}, &dray.Error{Op: "get", CID: key.cid, Err: dray.ErrClosed})
		}
	}
	for _, s := range n.sinks {
		s.end(dray.ErrClosed)
	}
	for _, l := range n.links {
		n.closeLink(l)
	}
	for _, g := range n.door.guests {
		n.dismiss(g)
	}
	close(n.ended)
}
