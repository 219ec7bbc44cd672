package exchange

import (
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
)

// The part of the script language that is about who may have what:
//
//	guard c100 c1..c8            c1 to c8 lie under c100, which is not open, and under no open root
//	open c1, unguard c100
//	gate only=A,B may=c100:A opens=1:c100,2:c100 mine=c100:1
//
// A gate serves only some peers, lets some have a root, lets proofs 1 and 2 open it, and shows proof 1 for it. In what a peer
// says, follow 1:c100+proof1 and walk 1:c100:1000:0+proof1 carry proofs, want-in 1:c1 names the feed of a CID.

// scriptGate goes by lists.
type scriptGate struct {
	only  []dray.PeerID
	may   map[cid.Cid][]dray.PeerID
	opens map[byte]cid.Cid
	mine  map[cid.Cid]byte
}

func (g *scriptGate) Serves(p dray.PeerID) bool {
	return len(g.only) == 0 || slices.Contains(g.only, p)
}

func (g *scriptGate) May(root cid.Cid, p dray.PeerID) bool { return slices.Contains(g.may[root], p) }

func (g *scriptGate) Opens(proof dray.Proof, _ dray.PeerID, _ cid.Cid) (cid.Cid, bool) {
	root, ok := g.opens[proof[0]]
	return root, ok
}

func (g *scriptGate) Prove(root cid.Cid, _ dray.PeerID) dray.Proof { return dray.Proof{g.mine[root]} }

func (s *script) access(name string, args []string) {
	switch name {
	case "gate":
		o := options(args)
		g := &scriptGate{may: map[cid.Cid][]dray.PeerID{}, opens: map[byte]cid.Cid{}, mine: map[cid.Cid]byte{}}
		list := func(key string, use func(left, right string)) {
			for _, x := range strings.FieldsFunc(o[key], func(r rune) bool { return r == ',' }) {
				left, right, _ := strings.Cut(x, ":")
				use(left, right)
			}
		}
		list("only", func(p, _ string) { g.only = append(g.only, dray.PeerID(p)) })
		list("may", func(c, p string) { g.may[s.cid(c)] = append(g.may[s.cid(c)], dray.PeerID(p)) })
		list("opens", func(n, c string) { g.opens[byte(s.number(n))] = s.cid(c) })
		list("mine", func(c, n string) { g.mine[s.cid(c)] = byte(s.number(n)) })
		for _, p := range s.e.SetGate(s.now, g) {
			s.printf("revoked while blocks are written: %s\n", string(p))
		}
	case "guard":
		s.e.Guard(s.now, s.cid(args[0]), s.cids(args[1:])...)
	case "open":
		s.e.Open(s.now, s.cids(args)...)
	case "unguard":
		s.e.Unguard(s.now, s.cid(args[0]))
	}
}

func (s *script) cids(args []string) (out []cid.Cid) {
	for _, a := range args {
		for _, c := range s.each(a) {
			out = append(out, s.cid(c))
		}
	}
	return out
}

// proof cuts +proof1 off a word.
func (s *script) proof(text string) (string, dray.Proof) {
	rest, n, ok := strings.Cut(text, "+proof")
	if !ok {
		return text, dray.Proof{}
	}
	return rest, dray.Proof{byte(s.number(n))}
}
