package health

import (
	"fmt"
	"slices"
	"time"

	"dray"
)

// PartitionState says whether this host is likely cut off.
//
//	Whole → Suspected → Partitioned → Recovering → Whole
//	Suspected → Whole         a blip
//	Suspected → Recovering    the third blip within half a minute: it has to be quiet first
//	Recovering → Partitioned  it was not over
//	any → Whole               there is nobody left of whom it could be said
type PartitionState uint8

// The states.
const (
	Whole       PartitionState = iota // most peers that were useful lately work
	Suspected                         // most of them fail; probes are out
	Partitioned                       // and did not answer: back-offs do not grow
	Recovering                        // most work again, but not for long yet
)

// String returns the state's name.
func (s PartitionState) String() string {
	names := [...]string{"Whole", "Suspected", "Partitioned", "Recovering"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("PartitionState(%d)", s)
}

// Mode says which wants come first after useful peers were lost. It never looks at peers that were not useful: a host
// with one peer, or none, is Normal.
type Mode uint8

// The modes.
const (
	Normal    Mode = iota // nobody is lost, or at least three peers are left
	Degraded              // one or two are left: nothing is fetched ahead while something is missed
	Emergency             // none is left: Urgent and Critical wants come before everything else
)

// String returns the mode's name.
func (m Mode) String() string {
	names := [...]string{"Normal", "Degraded", "Emergency"}
	if int(m) < len(names) {
		return names[m]
	}
	return fmt.Sprintf("Mode(%d)", m)
}

const (
	usefulFor    = 2 * time.Minute  // after its last delivery a peer counts no more
	suspectFor   = 2 * time.Second  // how long most fail, in spite of probes, before it is a partition
	stableFor    = 2 * time.Second  // how long most work before it is over
	recoverMost  = 30 * time.Second // and without any sign of life to confirm it
	probesBack   = 3                // signs of life that confirm it
	probeEvery   = time.Second
	blipWindow   = 30 * time.Second
	blipsAllowed = 2
	normalPeers  = 3
	maxMembers   = 64
)

// Partition is the view over the peers that were useful lately, at most 64 of them. The zero value has none. It is not safe for
// concurrent use.
//
// Invariant: due is set unless the state is Whole and nobody is in.
type Partition struct {
	state   PartitionState
	members []member // in order of becoming useful
	failing int      // how many of them fail
	since   time.Duration
	probeAt time.Duration // when the next probes are due, outside Whole
	signs   int           // of life while Recovering
	blips   []time.Duration
	idle    bool
}

type member struct {
	id      dray.PeerID
	useful  time.Duration // last delivery
	failing bool
}

// State returns the state.
func (v *Partition) State() PartitionState { return v.state }

// Live and Lost return how many of the peers that were useful lately work, and how many do not.
func (v *Partition) Live() int { return len(v.members) - v.failing }

// Lost is how many do not; see [Partition.Live].
func (v *Partition) Lost() int { return v.failing }

// Mode returns which wants come first.
func (v *Partition) Mode() Mode {
	switch live := v.Live(); {
	case v.failing == 0 || live >= normalPeers:
		return Normal
	case live > 0:
		return Degraded
	}
	return Emergency
}

func (v *Partition) find(id dray.PeerID) *member {
	for i := range v.members {
		if v.members[i].id == id {
			return &v.members[i]
		}
	}
	return nil
}

// Knows reports whether the peer was useful lately.
func (v *Partition) Knows(id dray.PeerID) bool { return v.find(id) != nil }

// Each calls f with every peer that was useful lately, in order of becoming so.
func (v *Partition) Each(f func(dray.PeerID)) {
	for _, m := range v.members {
		f(m.id)
	}
}

// Useful notes that a peer delivered something.
func (v *Partition) Useful(now time.Duration, id dray.PeerID) {
	m := v.find(id)
	if m == nil {
		if len(v.members) == maxMembers {
			v.drop(v.oldest())
		}
		v.members = append(v.members, member{id: id})
		m = &v.members[len(v.members)-1]
	}
	m.useful = now
	v.sign()
	v.set(now, m, false)
}

// oldest returns the place of the peer that was useful longest ago.
func (v *Partition) oldest() int {
	k := 0
	for i := range v.members {
		if v.members[i].useful < v.members[k].useful {
			k = i
		}
	}
	return k
}

// Fails notes that a peer cannot be had, if it was useful lately.
func (v *Partition) Fails(now time.Duration, id dray.PeerID) {
	if m := v.find(id); m != nil {
		v.set(now, m, true)
	}
}

// Works notes that a peer can be had again, if it was useful lately.
func (v *Partition) Works(now time.Duration, id dray.PeerID) {
	if m := v.find(id); m != nil {
		v.sign()
		v.set(now, m, false)
	}
}

// Forget takes a peer out: it was refused, so its absence says nothing.
func (v *Partition) Forget(now time.Duration, id dray.PeerID) {
	for i := range v.members {
		if v.members[i].id == id {
			v.drop(i)
			v.judge(now)
			return
		}
	}
}

// Idle says whether nothing is wanted of anybody. Lost peers are then forgotten like others, and nobody is probed.
func (v *Partition) Idle(now time.Duration, idle bool) {
	v.idle = idle
	if !idle && v.state != Whole {
		v.probeAt = now
	}
}

func (v *Partition) drop(i int) {
	if v.members[i].failing {
		v.failing--
	}
	v.members = slices.Delete(v.members, i, i+1)
}

func (v *Partition) sign() {
	if v.state == Recovering {
		v.signs++
	}
}

func (v *Partition) set(now time.Duration, m *member, failing bool) {
	if m.failing != failing {
		m.failing = failing
		if failing {
			v.failing++
		} else {
			v.failing--
		}
	}
	v.judge(now)
}

// bad reports whether most fail.
func (v *Partition) bad() bool { return 2*v.failing > len(v.members) }

// judge makes the changes that follow from who works.
func (v *Partition) judge(now time.Duration) {
	bad := v.bad()
	switch {
	case len(v.members) == 0:
		if v.state != Whole {
			v.to(now, Whole)
		}
	case v.state == Whole && bad:
		v.to(now, Suspected)
	case v.state == Suspected && !bad:
		v.blips = slices.DeleteFunc(v.blips, func(at time.Duration) bool { return now-at >= blipWindow })
		if len(v.blips) >= blipsAllowed {
			v.to(now, Recovering)
			break
		}
		v.blips = append(v.blips, now)
		v.to(now, Whole)
	case v.state == Suspected && now-v.since >= suspectFor:
		v.to(now, Partitioned)
	case v.state == Partitioned && !bad:
		v.to(now, Recovering)
	case v.state == Recovering && bad:
		v.to(now, Partitioned)
	case v.state == Recovering && now-v.since >= stableFor && (v.signs >= probesBack || now-v.since >= recoverMost):
		v.to(now, Whole)
	}
}

func (v *Partition) to(now time.Duration, s PartitionState) {
	if v.state == Whole {
		v.probeAt = now
	}
	v.state, v.since, v.signs = s, now, 0
}

// Due returns when [Partition.Advance] is to be called, if ever.
func (v *Partition) Due() (time.Duration, bool) {
	if len(v.members) == 0 {
		return 0, false
	}
	var at time.Duration
	consider := func(t time.Duration) {
		if at == 0 || t < at {
			at = max(t, 1)
		}
	}
	for i := range v.members {
		if v.expires(&v.members[i]) {
			consider(v.members[i].useful + usefulFor)
		}
	}
	switch v.state {
	case Suspected:
		consider(v.since + suspectFor)
	case Recovering:
		if v.signs >= probesBack {
			consider(v.since + stableFor)
		}
		consider(v.since + recoverMost)
	}
	if v.state != Whole && !v.idle {
		consider(v.probeAt)
	}
	return at, at != 0
}

// expires reports whether a peer is forgotten after a while. Not as long as nobody works and somebody is wanted: that the
// network is cut for long does not make it whole. And not one that works while others fail: it tells that something works.
func (v *Partition) expires(m *member) bool {
	return (v.idle || v.Live() > 0) && (m.failing || v.state == Whole)
}

// Advance makes the changes that are due. It reports whether probes are to be sent now to all that were useful; jitter is for
// when the next ones will be.
func (v *Partition) Advance(now time.Duration, jitter float64) (probe bool) {
	for i := 0; i < len(v.members); {
		if now-v.members[i].useful >= usefulFor && v.expires(&v.members[i]) {
			v.drop(i)
		} else {
			i++
		}
	}
	v.judge(now)
	if v.state == Whole || v.idle || now < v.probeAt {
		return false
	}
	v.probeAt = now + stretched(probeEvery, jitter)
	return true
}
