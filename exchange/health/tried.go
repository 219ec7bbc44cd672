package health

import (
	"time"

	"dray"
)

const (
	triedFirst = 5 * time.Second
	triedMax   = 10 * time.Minute
	triedPeers = 1024 // peers of which addresses are remembered
	triedAddrs = 64   // addresses of one peer
)

// Tried remembers addresses that did not answer, so that one which is known to fail does not keep others from being tried.
// Each is passed over for 5 s, and for twice as long after each failure up to 10 min; after ten minutes more it is forgotten. The
// zero value remembers nothing. Beyond 1,024 peers the one whose last failure is oldest is forgotten, beyond 64 addresses of one
// peer likewise. It is not safe for concurrent use.
type Tried struct {
	peers map[dray.PeerID]*triedPeer
}

type triedPeer struct {
	addrs []triedAddr // in order of their last failure
}

type triedAddr struct {
	addr  string
	wait  time.Duration
	until time.Duration
}

func (p *triedPeer) last() time.Duration {
	a := p.addrs[len(p.addrs)-1]
	return a.until - a.wait
}

// Failed notes that addresses of a peer were tried and did not answer.
func (t *Tried) Failed(now time.Duration, peer dray.PeerID, addrs []string) {
	if len(addrs) == 0 {
		return
	}
	if t.peers == nil {
		t.peers = make(map[dray.PeerID]*triedPeer)
	}
	t.expire(now)
	p := t.peers[peer]
	if p == nil {
		p = &triedPeer{}
		t.peers[peer] = p
	}
	for _, addr := range addrs {
		a := triedAddr{addr: addr, wait: triedFirst}
		for i, o := range p.addrs {
			if o.addr == addr {
				a.wait = min(2*o.wait, triedMax)
				p.addrs = append(p.addrs[:i], p.addrs[i+1:]...)
				break
			}
		}
		a.until = now + a.wait
		p.addrs = append(p.addrs, a)
	}
	if n := len(p.addrs) - triedAddrs; n > 0 {
		p.addrs = append(p.addrs[:0], p.addrs[n:]...)
	}
	if len(t.peers) > triedPeers {
		t.forgetOldest()
	}
}

// Succeeded notes that the peer was reached: all its addresses may be tried again at once.
func (t *Tried) Succeeded(peer dray.PeerID) { delete(t.peers, peer) }

// Fresh returns those of addrs that may be tried now, in order. If there is none it returns all of them: when to dial is
// not decided here, only what.
func (t *Tried) Fresh(now time.Duration, peer dray.PeerID, addrs []string) []string {
	p := t.peers[peer]
	if p == nil {
		return addrs
	}
	var out []string
	for _, addr := range addrs {
		if !p.waits(now, addr) {
			out = append(out, addr)
		}
	}
	if len(out) == 0 {
		return addrs
	}
	return out
}

func (p *triedPeer) waits(now time.Duration, addr string) bool {
	for _, a := range p.addrs {
		if a.addr == addr {
			return now < a.until
		}
	}
	return false
}

// Len returns how many peers have addresses that failed.
func (t *Tried) Len() int { return len(t.peers) }

// expire forgets what nobody has tried for long. Deleting does not depend on the order.
func (t *Tried) expire(now time.Duration) {
	for id, p := range t.peers {
		kept := p.addrs[:0]
		for _, a := range p.addrs {
			if now < a.until+triedMax {
				kept = append(kept, a)
			}
		}
		if p.addrs = kept; len(kept) == 0 {
			delete(t.peers, id)
		}
	}
}

func (t *Tried) forgetOldest() {
	var oldest dray.PeerID
	var at time.Duration
	for id, p := range t.peers {
		if l := p.last(); oldest == "" || l < at || l == at && id < oldest {
			oldest, at = id, l
		}
	}
	delete(t.peers, oldest)
}
