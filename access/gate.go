package access

import (
	"crypto/hmac"

	"github.com/ipfs/go-cid"

	"dray"
)

// GateConfig says what a [Gate] goes by. The zero value keeps everything open.
type GateConfig struct {
	// Self is this host. Without it no proof is made or accepted.
	Self dray.PeerID
	// Book holds the rules. If nil, there are none.
	Book *Book
	// Members are the members. If nil, there are none.
	Members *Members
	// MembersOnly says that nobody but members is served anything at all.
	MembersOnly bool
}

// Gate answers what the engine asks about peers and roots. It is made from what holds now and does not change: when that
// does, the engine is given another. It is safe for concurrent use.
type Gate struct {
	self    dray.PeerID
	members *Members
	only    bool
	rules   map[string]Rule
	of      map[tag]held
	decoy   Secret // so that what is not here takes the same work
}

// held is a capability with the root that it opens.
type held struct {
	secret Secret
	key    string // the root's multihash
	root   cid.Cid
}

// NewGate returns a Gate for what holds now.
func NewGate(cfg GateConfig) *Gate {
	g := &Gate{
		self: cfg.Self, members: cfg.Members, only: cfg.MembersOnly, rules: make(map[string]Rule), of: make(map[tag]held),
	}
	if cfg.Book == nil {
		return g
	}
	for key, r := range cfg.Book.Clone().rules {
		g.rules[key] = r
		for _, c := range r.Capabilities {
			g.of[c.Secret.tag(key)] = held{c.Secret, key, r.Root}
		}
	}
	return g
}

// Serves reports whether a peer is served anything.
func (g *Gate) Serves(p dray.PeerID) bool { return !g.only || g.members.Has(p) }

// Closed reports whether a root has a rule.
func (g *Gate) Closed(root cid.Cid) bool {
	_, ok := g.rules[dray.HashKey(root)]
	return ok
}

// May reports whether a peer may have a root that is not open without a proof: it is a member, and the root is for members.
func (g *Gate) May(root cid.Cid, p dray.PeerID) bool {
	return g.rules[dray.HashKey(root)].Members && g.members.Has(p)
}

// Opens returns the root that a proof opens, which a peer has shown when it asked about some root; ok is false when it opens
// none. It takes the same work for every proof, whatever is known here.
func (g *Gate) Opens(proof dray.Proof, from dray.PeerID, about cid.Cid) (root cid.Cid, ok bool) {
	t := tag(proof[:tagSize])
	h, known := g.of[t]
	if !known {
		h = held{g.decoy, dray.HashKey(about), about}
	}
	want := h.secret.proof(t, h.key, from, g.self)
	if same := hmac.Equal(want[:], proof[:]); !same || !known || g.self == "" {
		return cid.Undef, false
	}
	return h.root, true
}

// Prove returns what this host shows to a peer to get a root: made with the latest capability, or none.
func (g *Gate) Prove(root cid.Cid, to dray.PeerID) dray.Proof {
	key := dray.HashKey(root)
	r := g.rules[key]
	if len(r.Capabilities) == 0 || g.self == "" {
		return dray.Proof{}
	}
	s := r.Capabilities[len(r.Capabilities)-1].Secret
	return s.proof(s.tag(key), key, g.self, to)
}
