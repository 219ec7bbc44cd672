package find

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-varint"

	"dray"
)

// AskProtocol is what peers exchange other peers over: one [Ask] and one [Answer] on a stream of its own. docs/finding.md has the
// bytes.
const AskProtocol = "/dray/peers/1"

const (
	// MaxAsk and MaxAnswer bound the two messages, in bytes.
	MaxAsk    = 4 << 10
	MaxAnswer = 64 << 10
	// MaxTold is how many peers an answer may name, and MaxToldAddrs how many addresses of each.
	MaxTold      = 32
	MaxToldAddrs = 8

	maxAddr   = 256
	maxPeerID = 128
)

// Ask is the question who holds or fetches a root.
type Ask struct {
	// Root is what it is about.
	Root cid.Cid
	// Proof shows that the asker may have the root; zero if it needs none, or has none.
	Proof dray.Proof
	// Fetches says that the asker fetches the root itself, and serves what it has at Addrs.
	Fetches bool
	// Onward says that who is asked may ask others, who then may not.
	Onward bool
	// Addrs are the asker's.
	Addrs []string
}

// Answer names peers, those that have most first.
type Answer []Told

// Told is a peer in an Answer.
type Told struct {
	// ID names it.
	ID dray.PeerID
	// Holds says that it is thought to hold the root, not only to fetch it.
	Holds bool
	// Addrs are where it may be.
	Addrs []string
}

var errAsk = errors.New("malformed")

const (
	flagProof   = 1
	flagFetches = 2
	flagOnward  = 4
	flagHolds   = 1
)

// AppendAsk appends the bytes of a question. Addresses beyond what may be said are left out.
func AppendAsk(dst []byte, a Ask) []byte {
	var flags byte
	if !a.Proof.IsZero() {
		flags |= flagProof
	}
	if a.Fetches {
		flags |= flagFetches
	}
	if a.Onward {
		flags |= flagOnward
	}
	dst = appendText(append(dst, flags), a.Root.KeyString())
	if flags&flagProof != 0 {
		dst = append(dst, a.Proof[:]...)
	}
	return appendAddrs(dst, a.Addrs)
}

// ParseAsk reads a question. The error says what is wrong with it.
func ParseAsk(b []byte) (a Ask, err error) {
	r := askReader{b: b}
	flags := r.flags(flagProof | flagFetches | flagOnward)
	a.Fetches, a.Onward = flags&flagFetches != 0, flags&flagOnward != 0
	root := r.text(dray.MaxCIDSize)
	if flags&flagProof != 0 {
		if copy(a.Proof[:], r.take(len(a.Proof))); a.Proof.IsZero() {
			r.fail("a proof of nothing")
		}
	}
	a.Addrs = r.addrs()
	if err := r.end(); err != nil {
		return Ask{}, err
	}
	if a.Root, err = cid.Cast([]byte(root)); err == nil {
		err = dray.CheckCID(a.Root)
	}
	if err != nil {
		return Ask{}, fmt.Errorf("%w: %w", errAsk, err)
	}
	return a, nil
}

// AppendAnswer appends the bytes of an answer. Peers and addresses beyond what may be said are left out.
func AppendAnswer(dst []byte, a Answer) []byte {
	a = a[:min(len(a), MaxTold)]
	dst = append(dst, varint.ToUvarint(uint64(len(a)))...)
	for _, p := range a {
		var flags byte
		if p.Holds {
			flags |= flagHolds
		}
		dst = appendAddrs(appendText(append(dst, flags), string(p.ID)), p.Addrs)
	}
	return dst
}

// ParseAnswer reads an answer. The error says what is wrong with it.
func ParseAnswer(b []byte) (Answer, error) {
	r := askReader{b: b}
	n := r.number(MaxTold)
	var a Answer
	for range n {
		p := Told{Holds: r.flags(flagHolds)&flagHolds != 0}
		if p.ID = dray.PeerID(r.text(maxPeerID)); p.ID == "" {
			r.fail("a peer without an id")
		}
		p.Addrs = r.addrs()
		a = append(a, p)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return a, nil
}

func appendText(dst []byte, s string) []byte {
	return append(append(dst, varint.ToUvarint(uint64(len(s)))...), s...)
}

func appendAddrs(dst []byte, addrs []string) []byte {
	var some []string
	for _, a := range addrs {
		if len(a) > 0 && len(a) <= maxAddr && len(some) < MaxToldAddrs {
			some = append(some, a)
		}
	}
	dst = append(dst, varint.ToUvarint(uint64(len(some)))...)
	for _, a := range some {
		dst = appendText(dst, a)
	}
	return dst
}

// askReader reads a message to its end or to the first thing that is wrong.
type askReader struct {
	b   []byte
	err error
}

func (r *askReader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errAsk, what)
	}
	r.b = nil
}

func (r *askReader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("cut off")
		return nil
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *askReader) flags(known byte) byte {
	b := r.take(1)
	if len(b) == 0 {
		return 0
	}
	if b[0]&^known != 0 {
		r.fail("unknown flags")
		return 0
	}
	return b[0]
}

// number reads a varint of the shortest form that is at most most.
func (r *askReader) number(most int) int {
	n, size, err := varint.FromUvarint(r.b)
	if err != nil || n > uint64(most) {
		r.fail("a number out of range")
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}

func (r *askReader) text(most int) string { return string(r.take(r.number(most))) }

func (r *askReader) addrs() (list []string) {
	for range r.number(MaxToldAddrs) {
		a := r.text(maxAddr)
		if a == "" {
			r.fail("an empty address")
		}
		list = append(list, a)
	}
	return list
}

func (r *askReader) end() error {
	if len(r.b) > 0 {
		r.fail("bytes too many")
	}
	return r.err
}
