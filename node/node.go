package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/digest"
	"dray/exchange"
	"dray/exchange/health"
	"dray/transport"
	"dray/wire"
)

// Config says what a Node is made of. Only Store is required.
type Config struct {
	// Store holds the blocks. The Node does not close it.
	Store dray.Store
	// Network connects to peers. If nil, the Node is offline: it serves nobody and finds only what Store holds. The Node
	// does not close it.
	Network transport.Network
	// Finder looks for peers that hold a block. If nil, only connected peers and those named in a call are asked. A
	// [transport.Judge] is told what came of it. The Node does not close it.
	Finder transport.Finder
	// Engine sets the limits of the exchange. Its zero value works.
	Engine exchange.Config
	// Workers is how many goroutines read from and write to the store. If zero, 4.
	Workers int
	// HashWorkers is how many goroutines hash. If zero, one per core.
	HashWorkers int
	// FrameBytes bounds the messages that are being received, hashed and written. If zero, 32 MiB; never less than two
	// of the largest messages.
	FrameBytes int64
	// Streams is how many streams blocks are sent on to one peer. If zero, 2.
	Streams int
	// Access says who may have what the Node holds. If zero, everybody may have everything. See [Node.SetAccess].
	Access Access
	// Ledger keeps what passed with each peer from one run to the next. If nil, it is forgotten with the Node.
	Ledger *Ledger
	// Admission says which peers are heard. What undecided ones say is kept until [Node.Readmit] finds that they are admitted. It
	// is called on the Node's loop. If nil, Access decides: everybody is admitted, or members and those whom the Node has dialled.
	Admission transport.Admission
	// Tentative bounds what is kept of undecided peers, which are disconnected after a while.
	Tentative transport.TentativeConfig
	// Note is called with each note that a peer sends, after the Node has acted on it, on the Node's loop: it must not block.
	// If nil, nobody is told.
	Note func(from dray.PeerID, note wire.Note)
	// Ended is called with each transfer that has ended, on its goroutine: it must not block. If nil, nobody is told.
	Ended func(Transfer)
	// Services are protocols of others that peers may use here. If empty, none. See [Node.Call].
	Services []Service
	// Log receives what an operator may want to know. If nil, nothing is logged.
	Log *slog.Logger
}

func (c *Config) setDefaults() {
	if c.Workers <= 0 {
		c.Workers = 4
	}
	if c.FrameBytes == 0 {
		c.FrameBytes = 32 << 20
	}
	c.FrameBytes = max(c.FrameBytes, 2*wire.MaxMessageSize)
	if c.Streams <= 0 {
		c.Streams = 2
	}
	if c.Tentative.Bytes <= 0 {
		c.Tentative.Bytes = 256 << 10
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Engine.Seed == 0 {
		c.Engine.Seed = uint64(time.Now().UnixNano())
	}
}

// Node exchanges blocks with peers. It is safe for concurrent use.
type Node struct {
	cfg     Config
	store   dray.Store
	raw     dray.RawGetter // store, if it can
	net     transport.Network
	hash    *digest.Pool
	buffers *buffers
	budget  *budget // of bytes being received and not yet written
	start   time.Time
	vitals  *vitals
	loads   loads

	transfers transfers
	records   records

	services services

	inputs chan func()   // to the loop; bounded, senders wait or give up when done closes
	jobs   chan job      // from the loop to the store workers
	done   chan struct{} // closed by Close
	ended  chan struct{} // closed when the loop has ended
	closed atomic.Bool
	wg     sync.WaitGroup // every goroutine of the Node

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	door    door          // who comes and goes; owned by loop
	private atomic.Bool   // something may be not for everybody; set before it is so, and never taken back
	added   atomic.Uint64 // counts local puts, so that a look-up can tell whether one came between

	// Owned by loop.
	engine   *exchange.Engine
	links    map[dray.PeerID]*link
	dialling map[dray.PeerID]bool
	book     map[dray.PeerID]*contact
	tried    health.Tried
	bulkFrom map[dray.PeerID]time.Duration // when bulk streams may be opened to peers where one has failed
	queue    []job                         // jobs not handed out yet; the engine bounds their number
	head     int
	waiters  map[waitKey][]*waiter
	sinks    map[exchange.SessionID]*sink
	cuts     map[cid.Cid][]*cutter
	arrived  map[*byte]*frame // by a block's first byte, the frame of each block that is kept or being written
	walkers  map[walkKey]*walker
	seeks    map[exchange.SessionID]*seek
	guarded  map[cid.Cid]bool // roots that are not open
	onlooker onlooker
	members  map[dray.PeerID]bool
	comrades []transport.Peer     // members with addresses
	wanted   []transport.Peer     // others to stay connected to
	kept     map[dray.PeerID]bool // both

	membersOnly bool         // strangers are refused
	settled     []dray.Block // written; their frames are done with once they are delivered
}

// New returns a running Node. It starts to serve what the store holds at once.
func New(cfg Config) (*Node, error) {
	if cfg.Store == nil {
		return nil, fmt.Errorf("node: a Config needs a Store")
	}
	cfg.setDefaults()
	n := &Node{
		cfg: cfg, store: cfg.Store, net: cfg.Network,
		hash:     digest.NewPool(digest.Config{Workers: cfg.HashWorkers}),
		buffers:  newBuffers(),
		budget:   newBudget(cfg.FrameBytes),
		start:    time.Now(),
		vitals:   newVitals(),
		inputs:   make(chan func(), 1024),
		jobs:     make(chan job),
		done:     make(chan struct{}),
		ended:    make(chan struct{}),
		engine:   exchange.New(cfg.Engine),
		links:    make(map[dray.PeerID]*link),
		dialling: make(map[dray.PeerID]bool),
		book:     make(map[dray.PeerID]*contact),
		bulkFrom: make(map[dray.PeerID]time.Duration),
		waiters:  make(map[waitKey][]*waiter),
		sinks:    make(map[exchange.SessionID]*sink),
		cuts:     make(map[cid.Cid][]*cutter),
		arrived:  make(map[*byte]*frame),
		walkers:  make(map[walkKey]*walker),
		seeks:    make(map[exchange.SessionID]*seek),
		guarded:  make(map[cid.Cid]bool),
	}
	n.door = newDoor(cfg.Tentative)
	n.transfers.n, n.transfers.running, n.transfers.of = n, make(map[uint64]*docket), make(map[exchange.SessionID]*docket)
	n.onlooker.states = make(map[dray.PeerID]health.State)
	n.raw, _ = cfg.Store.(dray.RawGetter)
	var err error
	if n.services.by, err = servicesByProtocol(cfg.Services); err != nil {
		n.hash.Close()
		return nil, err
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.beginAccess(); err != nil {
		n.hash.Close()
		return nil, err
	}
	for range cfg.Workers {
		n.wg.Go(n.work)
	}
	if cfg.Ledger != nil {
		n.restore(cfg.Ledger)
		n.wg.Go(func() { n.keepLedger(cfg.Ledger) })
	}
	n.wg.Go(n.loop)
	n.wg.Go(n.watchVitals)
	if n.net != nil {
		if cfg.Admission != nil {
			n.wg.Go(n.sweepGuests)
		}
		n.net.Handle(n.protocols(), n.accept)
		n.net.Notify(n.peerUp, n.peerDown)
	}
	return n, nil
}

// Close ends every session and link and returns when no goroutine of the Node runs any more. The store and the network
// stay open. Close may be called more than once.
func (n *Node) Close() error {
	if n.closed.CompareAndSwap(false, true) {
		close(n.done)
		n.cancel()
		n.budget.close()
	}
	n.wg.Wait()
	n.hash.Close()
	return nil
}

// Self returns this host's id, or "" when the Node is offline.
func (n *Node) Self() dray.PeerID {
	if n.net == nil {
		return ""
	}
	return n.net.Self()
}

// Addrs returns the addresses at which others can reach this host, each with its id.
func (n *Node) Addrs() []string {
	if n.net == nil {
		return nil
	}
	return n.net.Addrs()
}

// Store returns the store that the Node was made with.
func (n *Node) Store() dray.Store { return n.store }

// Added tells the Node that blocks were put into the store by somebody else, so that local waiters and peers who wait for
// them hear of it. Blocks that [Node.Put] or [Node.Add] wrote are known already.
func (n *Node) Added(blocks ...dray.Stat) {
	n.added.Add(1)
	for part := range slices.Chunk(blocks, loopBatch) {
		n.do(func() {
			for _, b := range part {
				n.engine.Added(n.now(), b.CID, b.Size)
			}
		})
	}
}

// loopBatch is how many blocks the loop is told of in one go, so that it can turn to something else in between.
const loopBatch = 256

// Removed tells the Node that blocks are no longer in the store, so that peers who were told of them are told so.
func (n *Node) Removed(cids ...cid.Cid) {
	for part := range slices.Chunk(cids, loopBatch) {
		n.do(func() {
			for _, c := range part {
				n.engine.Removed(n.now(), c)
			}
		})
	}
}

// CountCopies makes the Node ask every peer that fetches root to say which leaves it holds so that they would survive a loss
// of power. [Node.Copies] tells the result.
func (n *Node) CountCopies(root cid.Cid) { n.do(func() { n.engine.CountCopies(root) }) }

// Copies returns how many connected peers have said that they hold each leaf of root, by index; after [Node.CountCopies],
// those that hold it durably. It returns nil when nobody has asked about root.
func (n *Node) Copies(root cid.Cid) []uint16 {
	var out []uint16
	n.ask(func() { out = n.engine.Copies(root) })
	return out
}

// Put writes blocks to the store and lets those know who wait for them.
func (n *Node) Put(ctx context.Context, blocks ...dray.Block) error {
	if err := n.store.Put(ctx, blocks...); err != nil {
		return err
	}
	stats := make([]dray.Stat, len(blocks))
	for i, b := range blocks {
		stats[i] = dray.Stat{CID: b.CID(), Size: int64(b.Size())}
	}
	n.Added(stats...)
	return nil
}

// Connect dials a peer at the given addresses, or those that the network knows. The Node asks connected peers for what it
// misses.
func (n *Node) Connect(ctx context.Context, p transport.Peer) error {
	if n.net == nil {
		return &dray.Error{Op: "connect", Peer: p.ID, Err: fmt.Errorf("%w: the node is offline", dray.ErrUnreachable)}
	}
	_, err := n.net.Dial(ctx, p.ID, p.Addrs)
	return err
}

// Totals returns what the exchange has counted since the Node was made.
func (n *Node) Totals() exchange.Stats {
	var s exchange.Stats
	n.ask(func() { s = n.engine.Totals() })
	return s
}

// now is the engine's clock: time since the Node was made. It follows the monotonic clock, so steps of the wall clock do
// not show.
func (n *Node) now() time.Duration { return time.Since(n.start) }

// do hands an input to the loop. It waits while the loop is behind, and reports false when the Node is closed. It must not
// be called by the loop.
func (n *Node) do(f func()) bool {
	select {
	case n.inputs <- f:
		return true
	case <-n.done:
		return false
	}
}

// ask runs f on the loop and waits for it. It reports false when the Node is closed.
func (n *Node) ask(f func()) bool {
	answered := make(chan struct{})
	if !n.do(func() { f(); close(answered) }) {
		return false
	}
	select {
	case <-answered:
		return true
	case <-n.ended:
		select {
		case <-answered:
			return true
		default:
			return false
		}
	}
}
