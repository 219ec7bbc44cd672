package delegated

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
)

// Record is a peer that provides something, or that was asked for.
type Record struct {
	// ID names the peer.
	ID dray.PeerID
	// Addrs are where it may be: multiaddrs without the peer's id.
	Addrs []string
	// Protocols are what it is said to speak, such as "transport-bitswap"; empty when that is not known.
	Protocols []string
}

const (
	// Bitswap is the name of the protocol over which Drays give blocks to everybody.
	Bitswap = "transport-bitswap"

	prefix     = "/routing/v1/"
	typeJSON   = "application/json"
	typeStream = "application/x-ndjson"

	schemaPeer    = "peer"
	schemaBitswap = "bitswap"

	maxAddrs     = 64   // of one record
	maxProtocols = 32   // of one record
	maxAddr      = 1024 // bytes
)

// peerJSON is a record as it travels.
type peerJSON struct {
	Schema    string
	ID        string
	Addrs     []string `json:",omitempty"`
	Protocols []string `json:",omitempty"`
	// Protocol is the older schema's.
	Protocol string `json:",omitempty"`
}

var errSchema = errors.New("a record of another kind")

// parseRecord reads a record. Addresses that cannot be read are left out.
func parseRecord(text []byte) (Record, error) {
	var x peerJSON
	if err := json.Unmarshal(text, &x); err != nil {
		return Record{}, err
	}
	if x.Schema != schemaPeer && x.Schema != schemaBitswap {
		return Record{}, errSchema
	}
	id, err := parsePeer(x.ID)
	if err != nil {
		return Record{}, err
	}
	r := Record{ID: id}
	for _, a := range x.Addrs {
		if at, ok := addrOf(a, id); ok && len(r.Addrs) < maxAddrs && !slices.Contains(r.Addrs, at) {
			r.Addrs = append(r.Addrs, at)
		}
	}
	if x.Protocol != "" {
		x.Protocols = append(x.Protocols, x.Protocol)
	}
	r.Protocols = x.Protocols[:min(len(x.Protocols), maxProtocols)]
	return r, nil
}

// addrOf returns an address without the id of the peer that it is of; it is of no use when another peer's id is at its end.
func addrOf(text string, id dray.PeerID) (string, bool) {
	if len(text) > maxAddr {
		return "", false
	}
	m, err := ma.NewMultiaddr(text)
	if err != nil || len(m) == 0 {
		return "", false
	}
	if last := m[len(m)-1]; last.Protocol().Code == ma.P_P2P {
		if string(last.RawValue()) != string(id) {
			return "", false
		}
		m = m[:len(m)-1]
	}
	return m.String(), len(m) > 0
}

// appendRecord appends a record and a line break.
func appendRecord(dst []byte, r *Record) []byte {
	text, err := json.Marshal(peerJSON{Schema: schemaPeer, ID: r.ID.String(), Addrs: r.Addrs, Protocols: r.Protocols})
	if err != nil {
		panic(err) // it is strings
	}
	return append(append(dst, text...), '\n')
}

const keyCodec = 0x72 // libp2p-key

// parsePeer reads a peer id as people write it: base58, or a CID of libp2p's key codec.
func parsePeer(s string) (dray.PeerID, error) {
	if len(s) == 0 || len(s) > 128 {
		return "", fmt.Errorf("%d characters are no peer id", len(s))
	}
	if id, err := dray.ParsePeerID(s); err == nil {
		return id, nil
	}
	c, err := cid.Decode(s)
	if err != nil {
		return "", fmt.Errorf("%.100q is no peer id", s)
	}
	if c.Version() != 1 || c.Type() != keyCodec {
		return "", fmt.Errorf("%.100q is a CID and no peer id", s)
	}
	return dray.PeerID(c.Hash()), nil
}

// filter says which records and addresses are wanted (IPIP-484). The zero filter wants all.
type filter struct {
	protocols []string // one of them; "unknown" means none
	with      []string // addresses that have one of them, if there are any
	without   []string // and none of those
	bare      bool     // also records without addresses
}

const (
	unknown   = "unknown"
	maxFilter = 32
)

// parseFilter reads the values of filter-protocols and filter-addrs.
func parseFilter(protocols, addrs string) (f filter, err error) {
	f.protocols = words(protocols)
	for _, a := range words(addrs) {
		switch no, negative := strings.CutPrefix(a, "!"); {
		case a == unknown:
			f.bare = true
		case negative:
			f.without = append(f.without, no)
		default:
			f.with = append(f.with, a)
		}
	}
	if len(f.protocols)+len(f.with)+len(f.without) > maxFilter {
		return filter{}, fmt.Errorf("more than %d filters", maxFilter)
	}
	return f, nil
}

func words(list string) []string {
	return slices.DeleteFunc(strings.Split(strings.ToLower(list), ","), func(s string) bool { return s == "" })
}

// apply returns what is wanted of a record, or ok false.
func (f *filter) apply(r Record) (out Record, ok bool) {
	if len(f.protocols) > 0 && !slices.ContainsFunc(f.protocols, func(p string) bool {
		return p == unknown && len(r.Protocols) == 0 ||
			slices.ContainsFunc(r.Protocols, func(o string) bool { return strings.EqualFold(o, p) })
	}) {
		return r, false
	}
	if len(f.with)+len(f.without) == 0 && !f.bare || len(r.Addrs) == 0 && f.bare {
		return r, true
	}
	var some []string
	for _, a := range r.Addrs {
		part := strings.Split(a, "/")
		has := func(name string) bool { return slices.Contains(part, name) }
		switch {
		case slices.ContainsFunc(f.without, has):
		case len(f.with) == 0 && !f.bare, slices.ContainsFunc(f.with, has):
			some = append(some, a)
		}
	}
	r.Addrs = some
	return r, len(some) > 0
}
