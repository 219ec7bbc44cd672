package mirror

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/multiformats/go-multihash"

	"dray"
)

// stage is what a node has of some content.
type stage string

const (
	stageNone      stage = "none"
	stageChoosing  stage = "choosing"  // it is deciding, or has begun and nobody feeds it now
	stageFollowing stage = "following" // somebody feeds it
	stageLeading   stage = "leading"   // it reads from the upstream
	stageComplete  stage = "complete"
)

// standing is what a peer says about some content.
type standing struct {
	peer  dray.PeerID
	stage stage
	// front is how many bytes it has from the beginning.
	front int64
	// path is whom the bytes come through: the peer that feeds it, and so on; while it chooses, through whom it hopes they will.
	path []dray.PeerID
	// unable says that its upstream has failed it.
	unable bool
}

// choice is whom to follow; nobody means to lead.
type choice struct {
	follow dray.PeerID
	// hopeless says that there is nobody to follow, and that this node is unable to lead.
	hopeless bool
}

// weigh returns how much a node weighs for a key: whoever weighs most leads, and since everybody computes the same, no votes
// are needed. Each key has another order, which spreads the load, and a node that comes or goes changes only what it leads
// (rendezvous hashing).
func weigh(key string, id dray.PeerID) uint64 {
	var room [dray.MaxDigest]byte
	sum, err := dray.Sum(multihash.SHA2_256, 32, room[:0], []byte(key+"\x00"+string(id)))
	if err != nil {
		panic("mirror: " + err.Error())
	}
	return binary.BigEndian.Uint64(sum)
}

// outweighs reports whether a comes before b as the leader of a key. No two nodes weigh the same.
func outweighs(key string, a, b dray.PeerID) bool {
	return cmp.Or(cmp.Compare(weigh(key, a), weigh(key, b)), cmp.Compare(a, b)) > 0
}

// decide says whom a node follows, given what it has itself and what peers say, or that it leads. Somebody who has all or is at
// it is followed: first those who have it, then who reads it from the upstream, then who is fed, if not through this node. When
// there is nobody, who has most of it leads, and among equals who weighs most. A node that is asked for a feed decides by the
// same rule; since weights only increase on the way, nobody comes to follow itself, unless views change meanwhile, which the
// feed's path shows. Who hopes for this node does not lead.
func decide(key string, self standing, peers []standing) choice {
	rank := map[stage]int{stageComplete: 3, stageLeading: 2, stageFollowing: 1}
	best := choice{hopeless: true}
	var at standing
	for _, p := range peers {
		if rank[p.stage] == 0 || p.stage == stageFollowing && slices.Contains(p.path, self.peer) {
			continue
		}
		better := cmp.Compare(rank[p.stage], rank[at.stage])
		if better > 0 || better == 0 && outweighs(key, p.peer, at.peer) {
			best, at = choice{follow: p.peer}, p
		}
	}
	if !best.hopeless {
		return best
	}
	var leader *standing
	for _, p := range append(slices.Clone(peers), self) {
		if p.unable || p.peer != self.peer && (p.stage == stageFollowing || slices.Contains(p.path, self.peer)) {
			continue
		}
		if leader == nil || p.front > leader.front || p.front == leader.front && outweighs(key, p.peer, leader.peer) {
			leader = &p
		}
	}
	switch {
	case leader == nil:
		return choice{hopeless: true}
	case leader.peer == self.peer:
		return choice{}
	}
	return choice{follow: leader.peer}
}

// without takes those for choosing who say that they are fed through somebody who has failed this node: they will see that, too, and choose.
func without(failed map[dray.PeerID]bool, peers []standing) []standing {
	for i, p := range peers {
		if p.stage == stageFollowing && slices.ContainsFunc(p.path, func(id dray.PeerID) bool { return failed[id] }) {
			peers[i].stage, peers[i].path = stageChoosing, nil
		}
	}
	return peers
}

// breaksOut reports whether, in a circle of nodes of which each hopes to be fed by the next, it is self that must give up hope.
func breaksOut(key string, self dray.PeerID, hope []dray.PeerID) bool {
	circle := hope[:max(slices.Index(hope, self), 0)]
	return len(circle) > 0 && !slices.ContainsFunc(circle, func(id dray.PeerID) bool { return outweighs(key, id, self) })
}
