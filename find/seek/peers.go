package seek

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/find"
	"dray/transport"
)

// Host is what [Peers] needs of the node that it works for. It is safe for concurrent use.
type Host interface {
	// Addrs returns the addresses at which others can reach this host.
	Addrs() []string
	// Connected returns the peers that this host is connected to and that may speak [find.AskProtocol].
	Connected() []Contact
	// Call opens a stream to a peer, which is dialled if it is not connected.
	Call(ctx context.Context, p transport.Peer, protocol transport.Protocol) (transport.Stream, error)
	// Share says what this host has of a root.
	Share(root cid.Cid) Share
	// MayTell reports whether a connected peer may be told about a root, perhaps by a proof that it shows.
	MayTell(peer dray.PeerID, root cid.Cid, proof dray.Proof) bool
	// Prove returns what to show to a connected peer to be told about a root.
	Prove(peer dray.PeerID, root cid.Cid) dray.Proof
}

// Contact is a connected peer.
type Contact struct {
	// ID names it, and Remote is its address on the connection.
	ID     dray.PeerID
	Remote string
}

// Share is what a host has of a root.
type Share struct {
	// Holds says that it has some of it, and serves that.
	Holds bool
	// Mates are the connected peers that hold or fetch it, as they have said themselves; Whole are those that have all.
	Mates []dray.PeerID
	Whole map[dray.PeerID]bool
}

const (
	askMost     = 16 // peers that are asked about a root
	askParallel = 8
	askTime     = 5 * time.Second // for one of them
	onwardTime  = 3 * time.Second // for all of those whom this host asks on behalf of another
	onwardMost  = 8               // such questions at a time
	serveTime   = 10 * time.Second
	hintTTL     = time.Hour        // of what others say
	fetchTTL    = 10 * time.Minute // of who says that it fetches
)

// PeersConfig says what a [Peers] works with. All but the bounds is required.
type PeersConfig struct {
	// Host is the node.
	Host Host
	// Self is this host.
	Self dray.PeerID
	// Asks bounds how often a peer may ask: if zero, 64 times at once and ten times a second.
	Asks find.RateConfig
	// Hints bounds how many peers are believed of a teller: if zero, 64 at once and one every ten seconds, and one more for each
	// that turned out to be there.
	Hints find.RateConfig
}

// Peers asks peers who holds what, and answers them: what this host holds, who of those connected has told that it holds or
// fetches it, and who is remembered. Who is asked may ask its own peers, who do not ask on. About a root that is not for everybody
// it speaks only to those who may have it. It is safe for concurrent use.
type Peers struct {
	cfg    PeersConfig
	memory *Finder // set once, before it is used
	onward atomic.Int32

	mu      sync.Mutex // guards what follows
	asks    *find.Rates
	hints   *find.Rates
	tellers map[dray.PeerID]dray.PeerID // who was the first to name a peer that nobody has reached yet; bounded
}

// NewPeers returns a Peers. Remember must be called before it is used.
func NewPeers(cfg PeersConfig) *Peers {
	cfg.Asks.Burst, cfg.Asks.Every = cmp.Or(cfg.Asks.Burst, 64), cmp.Or(cfg.Asks.Every, time.Second/10)
	cfg.Hints.Burst, cfg.Hints.Every = cmp.Or(cfg.Hints.Burst, 64), cmp.Or(cfg.Hints.Every, 10*time.Second)
	return &Peers{
		cfg: cfg, asks: find.NewRates(cfg.Asks), hints: find.NewRates(cfg.Hints), tellers: make(map[dray.PeerID]dray.PeerID),
	}
}

// Remember says where what peers say is remembered.
func (p *Peers) Remember(f *Finder) { p.memory = f }

// mostTellers bounds how many named peers are tied to who named them.
const mostTellers = 4096

// Reached notes that a peer is there, which speaks for who named it.
func (p *Peers) Reached(id dray.PeerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if teller, ok := p.tellers[id]; ok {
		delete(p.tellers, id)
		p.hints.Give(p.memory.now(), teller, 1)
	}
}

// Connected returns the finder that asks connected peers.
func (p *Peers) Connected() transport.Finder {
	return asked{p: p, onward: true, whom: func(c cid.Cid) []transport.Peer {
		share := p.cfg.Host.Share(c)
		list := p.cfg.Host.Connected()
		slices.SortStableFunc(list, func(a, b Contact) int { // who shares the root knows most
			return cmp.Compare(slices.Index(share.Mates, b.ID), slices.Index(share.Mates, a.ID))
		})
		var out []transport.Peer
		for _, x := range list {
			out = append(out, transport.Peer{ID: x.ID})
		}
		return out
	}}
}

// Named returns the finder that asks those peers that whom returns and that are not connected: they are dialled. If onward is
// set, they may ask others.
func (p *Peers) Named(whom func() []transport.Peer, onward bool) transport.Finder {
	return asked{p: p, onward: onward, whom: func(cid.Cid) []transport.Peer {
		connected := p.cfg.Host.Connected()
		return slices.DeleteFunc(slices.Clone(whom()), func(x transport.Peer) bool {
			return x.ID == p.cfg.Self || slices.ContainsFunc(connected, func(o Contact) bool { return o.ID == x.ID })
		})
	}}
}

// asked is a finder that asks some peers.
type asked struct {
	p      *Peers
	onward bool
	whom   func(cid.Cid) []transport.Peer
}

// Find implements [transport.Finder].
func (a asked) Find(ctx context.Context, c cid.Cid, found func(transport.Peer)) error {
	list := a.whom(c)
	return a.p.askAll(ctx, list[:min(len(list), askMost)], c, a.onward, func(_ dray.PeerID, t find.Told) {
		found(transport.Peer{ID: t.ID, Addrs: t.Addrs})
	})
}

// askAll asks peers, a few at a time, and calls told for each answer that is believed, one at a time. The error is of the last
// that did not answer, if nobody did.
func (p *Peers) askAll(
	ctx context.Context, list []transport.Peer, c cid.Cid, onward bool, told func(by dray.PeerID, t find.Told),
) error {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		answered bool
		last     error
	)
	next := make(chan transport.Peer, len(list))
	for _, x := range list {
		next <- x
	}
	close(next)
	for range min(askParallel, len(list)) {
		wg.Go(func() {
			for x := range next {
				answer, err := p.ask(ctx, x, c, onward)
				believed := p.believe(x.ID, answer)
				mu.Lock()
				if err != nil {
					last = err
				} else {
					answered = true
				}
				for _, t := range believed {
					told(x.ID, t)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if answered {
		return nil
	}
	return last
}

// ask asks one peer.
func (p *Peers) ask(ctx context.Context, x transport.Peer, c cid.Cid, onward bool) (find.Answer, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	s, err := p.cfg.Host.Call(ctx, x, find.AskProtocol)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	defer s.Reset()
	q := find.Ask{Root: c, Onward: onward, Proof: p.cfg.Host.Prove(x.ID, c)}
	if p.cfg.Host.Share(c).Holds {
		q.Fetches, q.Addrs = true, Reachable(p.cfg.Host.Addrs(), p.remote(x.ID), true)
	}
	if _, err = s.Write(find.AppendAsk(nil, q)); err == nil {
		err = s.CloseWrite()
	}
	if err != nil {
		return nil, err
	}
	text, err := readAll(s, find.MaxAnswer)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, &dray.Error{Op: "ask", CID: c, Peer: x.ID, Err: transport.ErrBusy}
	}
	return find.ParseAnswer(text)
}

// Asks asks one peer whether it holds c itself; it is dialled if it is not connected. The error wraps [transport.ErrRefused]
// when it does not speak [find.AskProtocol], and [transport.ErrBusy] when it was asked too often.
func (p *Peers) Asks(ctx context.Context, x transport.Peer, c cid.Cid) (holds bool, err error) {
	answer, err := p.ask(ctx, x, c, false)
	return slices.ContainsFunc(answer, func(t find.Told) bool { return t.ID == x.ID && t.Holds }), err
}

// remote returns the address of a connected peer on its connection, or "".
func (p *Peers) remote(id dray.PeerID) string {
	for _, x := range p.cfg.Host.Connected() {
		if x.ID == id {
			return x.Remote
		}
	}
	return ""
}

// believe returns what is taken of what a peer has said: itself, and so many others, at such addresses as it can reach itself.
func (p *Peers) believe(teller dray.PeerID, a find.Answer) (out []find.Told) {
	if len(a) == 0 {
		return nil
	}
	remote := p.remote(teller)
	now := p.memory.now()
	for _, t := range a {
		own := t.ID == teller
		if t.ID == p.cfg.Self {
			continue
		}
		t.Addrs = Reachable(t.Addrs, remote, own)
		known := p.memory.Addrs(t.ID)
		if !own && len(t.Addrs) == 0 && len(known) == 0 {
			continue // nobody could go there
		}
		p.mu.Lock()
		if _, tied := p.tellers[t.ID]; !own && !tied && len(known) == 0 {
			if p.hints.Take(now, teller, 1) == 0 {
				p.mu.Unlock()
				continue
			}
			if len(p.tellers) >= mostTellers {
				for id := range p.tellers { // any will do: its teller gets nothing back
					delete(p.tellers, id)
					break
				}
			}
			p.tellers[t.ID] = teller
		}
		p.mu.Unlock()
		out = append(out, t)
	}
	return out
}

var errTooLong = errors.New("more than may be said")

// readAll reads a message of at most so many bytes.
func readAll(r io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(b) > most {
		err = errTooLong
	}
	return b, err
}

// Serve answers one question. It is a service of the node's, for [find.AskProtocol].
func (p *Peers) Serve(ctx context.Context, peer dray.PeerID, s transport.Stream) {
	defer s.Close()
	p.mu.Lock()
	may := p.asks.Take(p.memory.now(), peer, 1) == 1
	p.mu.Unlock()
	if !may {
		return // no answer means: not now
	}
	if s.SetReadDeadline(time.Now().Add(serveTime)) != nil || s.SetWriteDeadline(time.Now().Add(serveTime)) != nil {
		s.Reset()
		return
	}
	text, err := readAll(s, find.MaxAsk)
	if err != nil {
		s.Reset()
		return
	}
	q, err := find.ParseAsk(text)
	if err != nil {
		s.Reset()
		return
	}
	if _, err := s.Write(find.AppendAnswer(nil, p.answer(ctx, peer, q))); err != nil {
		s.Reset()
	}
}

// answer is what a peer is told.
func (p *Peers) answer(ctx context.Context, peer dray.PeerID, q find.Ask) (a find.Answer) {
	if !p.cfg.Host.MayTell(peer, q.Root, q.Proof) {
		return nil
	}
	remote := p.remote(peer)
	if addrs := Reachable(q.Addrs, remote, true); q.Fetches && len(addrs) > 0 {
		p.memory.Learn(q.Root, find.Provider{ID: peer, Addrs: addrs, Source: find.Peers}, fetchTTL)
	}
	share := p.cfg.Host.Share(q.Root)
	tell := func(id dray.PeerID, holds bool, addrs []string) {
		if id != peer && len(addrs) > 0 && len(a) < find.MaxTold &&
			!slices.ContainsFunc(a, func(t find.Told) bool { return t.ID == id }) {
			a = append(a, find.Told{ID: id, Holds: holds, Addrs: addrs})
		}
	}
	if share.Holds {
		tell(p.cfg.Self, true, Reachable(p.cfg.Host.Addrs(), remote, true))
	}
	for _, id := range share.Mates {
		tell(id, share.Whole[id], Reachable(p.memory.Addrs(id), remote, false))
	}
	for _, x := range p.memory.Providers(q.Root) {
		if !x.Exhausted {
			tell(x.ID, x.Source == find.Exchange, Reachable(x.Addrs, remote, false))
		}
	}
	if !q.Onward || len(a) > 0 {
		return a
	}
	for _, t := range p.askOnward(ctx, peer, q.Root, share.Mates) {
		tell(t.ID, t.Holds, Reachable(t.Addrs, remote, false))
	}
	return a
}

// askOnward asks the connected peers but one about a root, which tell of themselves and whom they know.
func (p *Peers) askOnward(ctx context.Context, but dray.PeerID, root cid.Cid, mates []dray.PeerID) (out []find.Told) {
	defer p.onward.Add(-1)
	if p.onward.Add(1) > onwardMost {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, onwardTime)
	defer cancel()
	var list []transport.Peer
	for _, x := range p.cfg.Host.Connected() {
		switch {
		case x.ID == but:
		case slices.Contains(mates, x.ID):
			list = slices.Insert(list, 0, transport.Peer{ID: x.ID})
		default:
			list = append(list, transport.Peer{ID: x.ID})
		}
	}
	err := p.askAll(ctx, list[:min(len(list), askMost)], root, false, func(by dray.PeerID, t find.Told) {
		source := find.Peers
		if by == t.ID && t.Holds {
			source = find.Exchange
		}
		p.memory.Learn(root, find.Provider{ID: t.ID, Addrs: t.Addrs, Source: source}, hintTTL)
		out = append(out, t)
	})
	_ = err // who does not answer knows nothing
	return out
}
