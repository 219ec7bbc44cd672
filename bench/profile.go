package main

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// added is the last line of `add --json`, Dray's and ours alike.
type added struct {
	CID    string `json:"cid"`
	Bytes  int64  `json:"bytes"`
	Leaves int    `json:"leaves"`
}

// serving is the first line of `serve --json`.
type serving struct {
	Peer  string   `json:"peer"`
	Addrs []string `json:"addrs"`
}

// fetched is the last line of `get --json`.
type fetched struct {
	CID            string   `json:"cid"`
	Bytes          int64    `json:"bytes"`
	Seconds        float64  `json:"seconds"`
	Sources        []source `json:"sources,omitempty"`
	DuplicateBytes int64    `json:"duplicate_bytes"`
	// Blocks is how many blocks a walk saw; only our own parties fill it.
	Blocks int `json:"blocks,omitempty"`
	// ConnectSeconds is how long the dial took and FirstSeconds how long after it the first leaf was verified and in
	// its place; only dray-node fills them.
	ConnectSeconds float64 `json:"connect_seconds,omitempty"`
	FirstSeconds   float64 `json:"first_seconds,omitempty"`
}

// source is one peer's part in a get.
type source struct {
	Peer     string `json:"peer"`
	Protocol string `json:"protocol"`
	// DataPlane is what the bytes took at last: streams of the connection that messages take, or connections of their
	// own.
	DataPlane string `json:"data_plane,omitempty"`
	Bytes     int64  `json:"bytes"`
}

// inForce says what a transfer used, as the program itself tells it: each protocol once, with the data planes that its
// bytes took. It is empty when the program tells nothing.
func (f *fetched) inForce() string {
	planes := map[string][]string{}
	for _, s := range f.Sources {
		name := strings.TrimPrefix(s.Protocol, "/")
		planes[name] = append(planes[name], s.DataPlane)
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(planes)) {
		all = append(all, strings.TrimSuffix(name+", "+planeNames(planes[name]), ", "))
	}
	return strings.Join(all, " + ")
}

// planeNames names each kind of data plane once. Behind a kind is the number of its connections, as in "tls x2", or the
// range of the numbers that occur.
func planeNames(planes []string) string {
	const mark = " x"
	numbers := map[string][]int{}
	for _, p := range planes {
		kind, text := p, ""
		if i := strings.LastIndex(p, mark); i >= 0 {
			kind, text = p[:i], p[i+len(mark):]
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			kind, n = p, 0
		}
		numbers[kind] = append(numbers[kind], n)
	}
	delete(numbers, "")
	var names []string
	for _, kind := range slices.Sorted(maps.Keys(numbers)) {
		least, most := slices.Min(numbers[kind]), slices.Max(numbers[kind])
		switch {
		case most == 0:
		case least == most:
			kind += fmt.Sprint(mark, most)
		default:
			kind += fmt.Sprintf("%s%d–%d", mark, least, most)
		}
		names = append(names, kind)
	}
	return strings.Join(names, " / ")
}

// sums is the last line of a program that has served: what it counted while it ran.
type sums struct {
	// Sent is in bytes of payload, whatever the program counts as such.
	Sent int64 `json:"sent"`
}

// profile is how a file becomes blocks.
type profile struct {
	name      string
	leaf      int
	links     int
	rawLeaves bool
	prefix    cid.Prefix
	// madeBy is the party whose DAG the others import; if empty, each makes its own from the file.
	madeBy string
}

// profiles are Dray's names for the parameters; the first two are Kubo's as well. The last two are nobody's: they are
// there for the leaf sizes at both ends of what is in use.
var profiles = []profile{
	{name: "unixfs-v0-2015", leaf: 256 << 10, links: 174, prefix: prefixV0},
	{name: "unixfs-v1-2025", leaf: 1 << 20, links: 1024, rawLeaves: true, prefix: prefixV1(mh.SHA2_256)},
	{name: "native", leaf: 1 << 20, links: 1024, rawLeaves: true, prefix: prefixV1(mh.BLAKE3)},
	{name: "leaf-64k", leaf: 64 << 10, links: 1024, rawLeaves: true, prefix: prefixV1(mh.SHA2_256), madeBy: "boxo"},
	{name: "leaf-2m", leaf: 2 << 20, links: 1024, rawLeaves: true, prefix: prefixV1(mh.SHA2_256), madeBy: "boxo"},
}

var prefixV0 = cid.Prefix{Version: 0, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: 32}

func prefixV1(hash uint64) cid.Prefix {
	return cid.Prefix{Version: 1, Codec: cid.DagProtobuf, MhType: hash, MhLength: 32}
}

func lookupProfile(name string) (profile, error) {
	for _, p := range profiles {
		if p.name == name {
			return p, nil
		}
	}
	return profile{}, fmt.Errorf("no profile %q", name)
}

// hashCode returns the multihash code of a function by its name.
func hashCode(name string) (uint64, error) {
	switch name {
	case "sha2-256":
		return mh.SHA2_256, nil
	case "blake3":
		return mh.BLAKE3, nil
	}
	return 0, fmt.Errorf("no hash function %q", name)
}

// hash returns the name of the profile's hash function.
func (p profile) hash() string { return mh.Codes[p.prefix.MhType] }

// cores is how many cores a party uses.
func cores() int { return runtime.GOMAXPROCS(0) }
