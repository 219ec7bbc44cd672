package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	manet "github.com/multiformats/go-multiaddr/net"
)

// A handshake costs about a millisecond of processor, and whoever connects makes this host pay for it before anything is known
// of him. So connections over TCP wait at a gate. What goes through at once:
//
//   - at most shakesPerCore handshakes for each core at a time, each counted for shakeTime at most;
//   - while much passes with peers, at most ratePerCore a second for each core, after a burst.
//
// Who waits is served address by address in turn, and of one address the latest first: under a flood the oldest have mostly
// given up. When more than maxWaiting wait, or one for longer than maxWait, the oldest of the address that has most of them is
// told that there is no room (busyLine), and dials again after a while. A host that has nothing to do takes all as they come.
const (
	shakesPerCore = 16
	shakeTime     = time.Second
	ratePerCore   = 20
	maxWaiting    = 128
	maxWait       = 5 * time.Second
	// busyFor is how long after much has passed with a peer the host counts as busy.
	busyFor = time.Second
	// farewells are said at a time, each within farewellTime; more are hung up on.
	farewells    = 32
	farewellTime = 200 * time.Millisecond
)

// busyLine is sent instead of the header of multistream-select to a dialler for whom there is no room. It has the form of a
// line, so that others end the dial in an orderly way.
const busyLine = "/dray/busy/1.0.0"

// errBusy means that the other side has said busyLine.
var errBusy = errors.New("no room")

// caller is a connection that waits.
type caller struct {
	arrival
	since  time.Time
	source netip.Prefix
	at     *gated
}

// gate is where connections over TCP wait for their handshakes.
type gate struct {
	busy  func() bool
	key   SwarmKey // of those who are let through
	slots int
	rate  float64 // handshakes a second when the host is busy
	burst float64
	wake  chan struct{} // one slot
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	waiting map[netip.Prefix][]caller // the oldest first, none empty
	turns   []netip.Prefix            // the keys of waiting, whose turn it is first
	n       int                       // how many wait
	under   map[*timedConn]time.Time  // handshakes under way, and when they began
	tokens  float64
	filled  time.Time
	leaving int // farewells under way
}

func newGate(busy func() bool, key SwarmKey) *gate {
	cores := runtime.GOMAXPROCS(0)
	g := &gate{
		busy: busy, key: key, slots: shakesPerCore * cores, rate: float64(ratePerCore * cores),
		wake: make(chan struct{}, 1), waiting: make(map[netip.Prefix][]caller), under: make(map[*timedConn]time.Time),
	}
	g.burst, g.tokens, g.filled = g.rate, g.rate, time.Now()
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.wg.Go(g.run)
	return g
}

func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.stop()
	g.wg.Wait()
}

// gated is a listener behind the gate.
type gated struct {
	transport.GatedMaListener
	gate *gate
	// through has room for all handshakes that may be under way.
	through chan arrival
	done    chan struct{}
	once    sync.Once
}

// guard wraps a listener.
func (g *gate) guard(l transport.GatedMaListener) transport.GatedMaListener {
	at := &gated{GatedMaListener: l, gate: g, through: make(chan arrival, g.slots), done: make(chan struct{})}
	g.mu.Lock()
	closed := g.closed
	if !closed {
		g.wg.Go(at.run)
	}
	g.mu.Unlock()
	if closed {
		_ = at.Close()
	}
	return at
}

// run accepts until the listener is closed.
func (at *gated) run() {
	for {
		c, scope, err := at.GatedMaListener.Accept()
		if err == nil {
			source, _ := sourceOf(c)
			at.gate.enter(caller{arrival{conn: c, scope: scope}, time.Now(), source, at})
			continue
		}
		select {
		case at.through <- arrival{err: err}:
		case <-at.done:
			return
		}
	}
}

// Accept implements libp2p's transport.GatedMaListener.
func (at *gated) Accept() (manet.Conn, network.ConnManagementScope, error) {
	select {
	case a := <-at.through:
		return a.conn, a.scope, a.err
	case <-at.done:
		return nil, nil, net.ErrClosed
	}
}

// Close implements libp2p's transport.GatedMaListener.
func (at *gated) Close() error {
	at.once.Do(func() {
		at.gate.mu.Lock()
		defer at.gate.mu.Unlock()
		close(at.done)
		for len(at.through) > 0 {
			select {
			case a := <-at.through:
				if c, ok := a.conn.(*timedConn); ok {
					delete(at.gate.under, c)
					drop(c.Conn, a.scope) // not c, which would call back and wait for mu
				}
			default: // Accept was faster
			}
		}
	})
	return at.GatedMaListener.Close()
}

// enter puts a connection in the queue.
func (g *gate) enter(c caller) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		drop(c.conn, c.scope)
		return
	}
	if g.waiting[c.source] == nil {
		g.turns = append(g.turns, c.source)
	}
	g.waiting[c.source] = append(g.waiting[c.source], c)
	g.n++
	if g.n > maxWaiting {
		g.refuseOldest()
	}
	g.admit(time.Now())
}

// refuseOldest turns the oldest away of the address of which most wait. The caller holds mu.
func (g *gate) refuseOldest() {
	most := g.turns[0]
	for _, s := range g.turns {
		if len(g.waiting[s]) > len(g.waiting[most]) {
			most = s
		}
	}
	g.refuse(g.take(most, 0))
}

// take removes one who waits. The caller holds mu.
func (g *gate) take(s netip.Prefix, i int) caller {
	list := g.waiting[s]
	c := list[i]
	g.n--
	if list = slices.Delete(list, i, i+1); len(list) > 0 {
		g.waiting[s] = list
	} else {
		delete(g.waiting, s)
		g.turns = slices.DeleteFunc(g.turns, func(o netip.Prefix) bool { return o == s })
	}
	return c
}

// admit lets through who may go now. The caller holds mu.
func (g *gate) admit(now time.Time) {
	g.tokens = min(g.burst, g.tokens+g.rate*now.Sub(g.filled).Seconds())
	g.filled = now
	limited := g.n > 0 && g.busy()
	for g.n > 0 && len(g.under) < g.slots && (!limited || g.tokens >= 1) {
		s := g.turns[0]
		g.turns = append(g.turns[1:], s)
		c := g.take(s, len(g.waiting[s])-1)
		g.tokens = max(0, g.tokens-1)
		select {
		case <-c.at.done:
			drop(c.conn, c.scope)
			continue
		default:
		}
		timed := &timedConn{Conn: c.conn, opening: opening{key: g.key}}
		timed.over = func() { g.shaken(timed) }
		g.under[timed] = now
		select {
		case c.at.through <- arrival{conn: timed, scope: c.scope}:
		default: // the listener is not accepting, or its errors have filled it
			delete(g.under, timed)
			drop(c.conn, c.scope)
		}
	}
	if g.n > 0 || len(g.under) > 0 {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
}

// shaken ends a handshake's stay.
func (g *gate) shaken(c *timedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, was := g.under[c]; was {
		delete(g.under, c)
		g.admit(time.Now())
	}
}

// run looks at those who wait, while there are any, until the gate is closed.
func (g *gate) run() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-g.wake:
			tick.Reset(20 * time.Millisecond)
		case <-g.ctx.Done():
			g.mu.Lock()
			for g.n > 0 {
				c := g.take(g.turns[0], 0)
				drop(c.conn, c.scope)
			}
			g.mu.Unlock()
			return
		}
		select {
		case <-tick.C:
			g.look(time.Now())
		case <-g.ctx.Done():
		}
	}
}

// look sends those away who have waited too long, and lets others through.
func (g *gate) look(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c, began := range g.under {
		if now.Sub(began) >= shakeTime {
			delete(g.under, c)
		}
	}
	for _, s := range slices.Clone(g.turns) {
		for list := g.waiting[s]; len(list) > 0 && now.Sub(list[0].since) >= maxWait; list = g.waiting[s] {
			g.refuse(g.take(s, 0))
		}
	}
	g.admit(now)
}

// refuse tells a dialler that there is no room. The caller holds mu.
func (g *gate) refuse(c caller) {
	if g.closed || g.leaving >= farewells {
		drop(c.conn, c.scope)
		return
	}
	g.leaving++
	g.wg.Go(func() {
		sayBusy(c.conn)
		drop(c.conn, c.scope)
		g.mu.Lock()
		g.leaving--
		g.mu.Unlock()
	})
}

// sayBusy sends busyLine and waits until the other side has hung up, so that a reset does not overtake it.
func sayBusy(c net.Conn) {
	if begun, ok := c.(*begunConn); ok {
		c = begun.Conn
	}
	_ = c.SetDeadline(time.Now().Add(farewellTime))
	if _, err := c.Write(appendLine(nil, busyLine)); err != nil {
		return
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, 16<<10)
}
