package exchange

import (
	"strings"

	"dray"
	"dray/wire"
)

// The part of the script language that is about roots. A root is a block with leaves:
//
//	root c100 c1..c8        c1 to c8 are the leaves under c100
//	peer-up A(swap)         a peer who speaks TensorSwap
//	session root=c100 walk=1000 push=500
//
// What a peer says is one word each, feeds and walks by number: follow 1:c100, follow 1:c100[2+3], follow 1:c100+durably, stop
// 1:c100, haves 1:0-3/8 (of eight leaves), lost 1:2/8, want-at 1:0-3, have-at, dont-have-at, cancel-at, walk
// 1:c100:bytes:push, stop-walk 1, walked 1:whole:0-1/8, credit 1000, info up,down. With +seq the message leaves numbers out;
// with in-lane its blocks are a walk's.

func (s *script) roots(name string, args []string) {
	switch name {
	case "root":
		m := dray.NewManifest(s.cid(args[0]), 8)
		for _, a := range args[1:] {
			for _, c := range s.each(a) {
				m.Append(s.cid(c), int64(s.block(c).Size()))
			}
		}
		m.Index()
		s.manifests[m.Root()] = m
	case "manifest":
		if !s.e.SetManifest(s.now, s.session(args[0]), s.manifests[s.cid(args[1])]) {
			s.printf("refused\n")
		}
	case "manifest-loaded":
		m := s.manifests[s.cid(args[0])]
		here := newLeafSet(m.Len())
		for _, a := range args[1:] {
			for _, c := range s.each(a) {
				for i, ok := m.Find(s.cid(c)); ok; i, ok = m.Next(i) {
					here.add(i)
				}
			}
		}
		s.e.ManifestLoaded(s.now, m.Root(), m, here)
	case "manifest-absent":
		s.e.ManifestLoaded(s.now, s.cid(args[0]), nil, nil)
	case "demand", "undemand":
		id := s.session(args[0])
		first, count := s.number(args[1]), s.number(args[2])
		if name == "undemand" {
			s.e.Undemand(s.now, id, first, count)
			return
		}
		m := s.e.sessions[id].man.m
		for i := first; i < first+count; i++ {
			delete(s.wants[id], m.Leaf(i).String())
		}
		s.e.Demand(s.now, id, first, count)
	case "removed":
		for _, c := range s.each(args[0]) {
			s.e.Removed(s.now, s.cid(c))
		}
	case "synced":
		s.e.Synced(s.now)
	case "count-copies":
		s.e.CountCopies(s.cid(args[0]))
	case "copies":
		s.printf("%v\n", s.e.Copies(s.cid(args[0])))
	case "restart":
		s.e.Restart(s.now, dray.PeerID(args[0]), Caps{Haves: true})
	case "walk-loaded": // walk-loaded A 1 whole c100 c101, without a status when there is more
		part := WalkPart{}
		for _, a := range args[2:] {
			if st, ok := walkStatuses[a]; ok {
				part.Last, part.Status = true, st
				continue
			}
			for _, c := range s.each(a) {
				part.Blocks = append(part.Blocks, wire.Block{Prefix: s.cid(c).Prefix(), Data: s.block(c).Data()})
			}
		}
		s.e.WalkLoaded(s.now, dray.PeerID(args[0]), uint32(s.number(args[1])), part)
	}
}

var walkStatuses = map[string]wire.WalkStatus{
	"whole": wire.WalkWhole, "part": wire.WalkPart, "absent": wire.WalkAbsent, "refused": wire.WalkRefused,
	"denied": wire.WalkDenied,
}

// recvRoots adds what one word of a message says about roots, and reports whether it is such a word.
func (s *script) recvRoots(m *wire.Message, verb, arg string) bool {
	number, rest, _ := strings.Cut(arg, ":")
	num := func(text string) uint32 { return uint32(s.number(text)) }
	run := func() wire.Leaves {
		l := wire.Leaves{Feed: num(number)}
		first, last, many := strings.Cut(rest, "-")
		if l.First, l.Count = num(first), 1; many {
			l.Count = num(last) - l.First + 1
		}
		return l
	}
	switch verb {
	case "want-in":
		m.Wants = append(m.Wants, wire.Entry{CID: s.cid(rest), Feed: num(number), SendDontHave: true, Priority: 1})
	case "denied":
		m.Haves = append(m.Haves, wire.Have{Feed: num(number), Denied: true})
	case "follow", "stop":
		f := wire.Follow{Feed: num(number), Stop: verb == "stop"}
		rest, f.Proof = s.proof(rest)
		rest, f.Durable = strings.CutSuffix(rest, "+durably")
		name, bounds, ok := strings.Cut(strings.TrimSuffix(rest, "]"), "[")
		if ok {
			first, count, _ := strings.Cut(bounds, "+")
			f.First, f.Count = num(first), num(count)
		}
		f.Root = s.cid(name)
		m.Follows = append(m.Follows, f)
	case "haves", "lost":
		h := wire.Have{Feed: num(number), Lost: verb == "lost"}
		h.Bits, h.Leaves = s.bits(rest)
		m.Haves = append(m.Haves, h)
	case "want-at", "have-at", "dont-have-at", "cancel-at":
		switch l := run(); verb {
		case "want-at":
			m.Wants = append(m.Wants, wire.Entry{Leaves: l, SendDontHave: true, Priority: 1})
		case "cancel-at":
			m.Wants = append(m.Wants, wire.Entry{Leaves: l, Cancel: true})
		default:
			m.Presences = append(m.Presences, wire.Presence{Leaves: l, Have: verb == "have-at"})
		}
	case "walk":
		rest, proof := s.proof(rest)
		part := strings.Split(rest, ":")
		m.Walks = append(m.Walks, wire.Walk{
			ID: num(number), Root: s.cid(part[0]), Bytes: uint64(num(part[1])), Push: uint64(num(part[2])),
			Proof: proof,
		})
	case "stop-walk":
		m.Walks = append(m.Walks, wire.Walk{ID: num(number), Stop: true})
	case "walked":
		status, pushed, _ := strings.Cut(rest, ":")
		x := wire.Walked{ID: num(number), Status: walkStatuses[status]}
		if pushed != "" {
			x.Pushed, x.Leaves = s.bits(pushed)
		}
		m.Walked = append(m.Walked, x)
	case "credit":
		m.Credit = uint64(num(arg))
	case "info":
		m.Info = wire.Info{Set: true, Uploading: strings.Contains(arg, "up"), Downloading: strings.Contains(arg, "down")}
	default:
		return false
	}
	return true
}

// bits reads 0-3,7/8: leaves 0 to 3 and 7 of eight.
func (s *script) bits(text string) (wire.Bits, uint32) {
	text, of, _ := strings.Cut(text, "/")
	var out wire.BitsWriter
	for _, r := range strings.Split(text, ",") {
		if r == "" {
			continue
		}
		first, last, many := strings.Cut(r, "-")
		a, b := uint32(s.number(first)), uint32(s.number(first))
		if many {
			b = uint32(s.number(last))
		}
		out.Add(a, b-a+1)
	}
	return out.Bits(), uint32(s.number(of))
}
