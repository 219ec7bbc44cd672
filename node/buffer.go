package node

import (
	"context"
	"sync"
	"time"

	"dray"
)

const (
	bufferStep  = 64 << 10 // sizes of buffers are multiples of this
	bufferSizes = 80       // so many sizes; larger buffers do not exist
	bufferIdle  = 24 << 20 // bytes of buffers kept for reuse
)

// buffers keeps byte slices for reuse, by size, within a bound. It is safe for concurrent use.
type buffers struct {
	mu   sync.Mutex
	free [bufferSizes][][]byte
	idle int
}

func newBuffers() *buffers { return &buffers{} }

// get returns a slice of n bytes whose content is undefined.
func (b *buffers) get(n int) []byte {
	class := (n + bufferStep - 1) / bufferStep
	if class >= bufferSizes {
		return make([]byte, n)
	}
	b.mu.Lock()
	if list := b.free[class]; len(list) > 0 {
		buf := list[len(list)-1]
		list[len(list)-1] = nil
		b.free[class] = list[:len(list)-1]
		b.idle -= cap(buf)
		b.mu.Unlock()
		return buf[:n]
	}
	b.mu.Unlock()
	return make([]byte, n, max(class, 1)*bufferStep)
}

// put gives a slice from get back. Nobody may use it any more.
func (b *buffers) put(buf []byte) {
	class := cap(buf) / bufferStep
	if cap(buf) == 0 || cap(buf)%bufferStep != 0 || class >= bufferSizes {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.idle+cap(buf) > bufferIdle {
		return
	}
	b.idle += cap(buf)
	b.free[class] = append(b.free[class], buf[:0])
}

// budget bounds bytes: whoever wants more than is left waits, first come first served. It is safe for concurrent use.
type budget struct {
	mu     sync.Mutex
	left   int64
	queue  []*claim
	closed bool
}

type claim struct {
	n    int64
	done chan struct{} // one slot: closed when the claim is granted or the budget closed
}

func newBudget(n int64) *budget { return &budget{left: n} }

// take waits until n bytes are left and takes them. It reports false when the budget was closed.
func (b *budget) take(n int64) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	if len(b.queue) == 0 && b.left >= n {
		b.left -= n
		b.mu.Unlock()
		return true
	}
	c := &claim{n: n, done: make(chan struct{})}
	b.queue = append(b.queue, c)
	b.mu.Unlock()
	<-c.done
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.closed
}

// give returns n bytes.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	for len(b.queue) > 0 && b.queue[0].n <= b.left {
		b.left -= b.queue[0].n
		close(b.queue[0].done)
		b.queue = b.queue[1:]
	}
}

// close makes everybody who waits, or comes later, give up.
func (b *budget) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, c := range b.queue {
		close(c.done)
	}
	b.queue = nil
}

// frame is one received message's buffer. It goes back when the last block in it is done with. Owned by loop after the
// blocks were hashed.
type frame struct {
	buf   []byte
	size  int64 // charged to the budget
	left  int   // blocks not done with
	taken bool  // somebody keeps a block's bytes: the buffer is left to the garbage collector
}

// arrive notes in which frame a block came that the engine keeps.
func (n *Node) arrive(b dray.Block, f *frame) {
	if b.Size() == 0 {
		n.drop(f) // it has no bytes in it
		return
	}
	n.arrived[&b.Data()[0]] = f
}

// Settle waits until the blocks that have arrived by now are written or thrown away, or ctx ends: what a session that has ended
// asked for may still be on its way to the store. The error is ctx's, or [dray.ErrClosed].
func (n *Node) Settle(ctx context.Context) error {
	var under map[*frame]bool
	step := time.NewTicker(settleLook)
	defer step.Stop()
	for {
		left := 0
		if !n.ask(func() {
			first := under == nil
			if first {
				under = make(map[*frame]bool, len(n.arrived))
			}
			for _, f := range n.arrived {
				if first {
					under[f] = true
				}
				if under[f] {
					left++
				}
			}
		}) {
			return dray.ErrClosed
		}
		if left == 0 {
			return nil
		}
		select {
		case <-step.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settleLook is how often Settle looks.
const settleLook = 5 * time.Millisecond

// unframe says that the node is done with a block that came in a frame.
func (n *Node) unframe(b dray.Block) {
	if b.Size() == 0 {
		return
	}
	at := &b.Data()[0]
	if f := n.arrived[at]; f != nil {
		delete(n.arrived, at)
		n.drop(f)
	}
}

// keep leaves the buffer in which a block arrived to whoever got the block.
func (n *Node) keep(b dray.Block) {
	if b.Size() == 0 {
		return
	}
	if f := n.arrived[&b.Data()[0]]; f != nil {
		f.taken = true
	}
}

// drop lowers the count of blocks that a frame still carries, and gives its buffer back with the last.
func (n *Node) drop(f *frame) {
	if f.left--; f.left > 0 {
		return
	}
	n.budget.give(f.size)
	if !f.taken {
		n.buffers.put(f.buf)
	}
}
