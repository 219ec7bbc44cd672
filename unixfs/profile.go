package unixfs

import (
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

// ShardRule says how the size of a directory is measured when deciding whether it becomes a tree of shards.
type ShardRule uint8

const (
	// LinksBytes counts the bytes of each entry's name and CID, and nothing else: the rule of old Kubo versions.
	LinksBytes ShardRule = iota
	// BlockBytes counts the bytes of the whole directory block.
	BlockBytes
)

// Profile is the set of choices that decides which CID a file or directory gets. Two machines with the same profile
// give the same content the same CID. The zero Profile is not usable; start from [Native], [V1] or [V0].
type Profile struct {
	// Name is what the profile is called on the command line.
	Name string
	// CIDVersion is 0 or 1. Raw leaves have version 1 in either case, as version 0 cannot name them.
	CIDVersion int
	// Hash is the multihash code of the hash function. Version 0 allows sha2-256 only.
	Hash uint64
	// ChunkSize is the number of content bytes in every leaf but the last.
	ChunkSize int64
	// RawLeaves says whether leaves are bare content or dag-pb nodes around it.
	RawLeaves bool
	// MaxLinks is the most links that an interior node of a file has; at least 2.
	MaxLinks int
	// Tensors says whether a file that is known to consist of parts (package tensor) is cut at their borders, so that each
	// has a CID of its own ([Builder.AddNode]). This package does not look into files: whoever feeds the Builder heeds it.
	Tensors bool
	// ShardRule and ShardThreshold decide when a directory becomes a tree of shards: when it measures more bytes by the
	// rule than the threshold. If the threshold is zero, it never does.
	ShardRule      ShardRule
	ShardThreshold int64
	// ShardFanout is the most links that a shard has: a power of two from 8 to 1024.
	ShardFanout int
}

// Native returns the profile that Dray uses when the user names none: that of [V1], with blake3 in place of sha2-256, and
// files of tensors cut at their borders.
func Native() Profile {
	p := V1()
	p.Name = "native"
	p.Hash = mh.BLAKE3
	p.Tensors = true
	return p
}

// V1 returns the profile unixfs-v1-2025 of IPIP-499.
func V1() Profile {
	return Profile{
		Name:           "unixfs-v1-2025",
		CIDVersion:     1,
		Hash:           mh.SHA2_256,
		ChunkSize:      1 << 20,
		RawLeaves:      true,
		MaxLinks:       1024,
		ShardRule:      BlockBytes,
		ShardThreshold: 256 << 10,
		ShardFanout:    256,
	}
}

// V0 returns the profile unixfs-v0-2015 of IPIP-499, which is what `ipfs add` does without options.
func V0() Profile {
	return Profile{
		Name:           "unixfs-v0-2015",
		CIDVersion:     0,
		Hash:           mh.SHA2_256,
		ChunkSize:      256 << 10,
		RawLeaves:      false,
		MaxLinks:       174,
		ShardRule:      LinksBytes,
		ShardThreshold: 256 << 10,
		ShardFanout:    256,
	}
}

// Profiles returns the profiles that [LookupProfile] knows, the default first.
func Profiles() []Profile { return []Profile{Native(), V1(), V0()} }

// LookupProfile returns the profile called name; the empty name means the default. The error for an unknown name
// lists the known ones.
func LookupProfile(name string) (Profile, error) {
	all := Profiles()
	if name == "" {
		return all[0], nil
	}
	names := make([]string, len(all))
	for i, p := range all {
		if p.Name == name {
			return p, nil
		}
		names[i] = p.Name
	}
	return Profile{}, fmt.Errorf("unknown profile %q; the profiles are %s", name, strings.Join(names, ", "))
}

// Check returns an error that says which choice of the profile cannot be.
func (p Profile) Check() error {
	_, known := dray.LookupHash(p.Hash)
	switch {
	case p.CIDVersion != 0 && p.CIDVersion != 1:
		return fmt.Errorf("profile %q: CID version %d, want 0 or 1", p.Name, p.CIDVersion)
	case !known || p.Hash == mh.IDENTITY:
		return fmt.Errorf("profile %q: hash function 0x%x is not allowed", p.Name, p.Hash)
	case p.CIDVersion == 0 && p.Hash != mh.SHA2_256:
		return fmt.Errorf("profile %q: CID version 0 needs sha2-256", p.Name)
	case p.ChunkSize < 1 || p.LeafBlockSize(p.ChunkSize) > dray.MaxBlockSize:
		return fmt.Errorf("profile %q: chunks of %d bytes, want 1 to about %d", p.Name, p.ChunkSize, dray.MaxBlockSize)
	case p.MaxLinks < 2 || p.MaxLinks > maxFileLinks:
		return fmt.Errorf("profile %q: %d links in a node, want 2 to %d", p.Name, p.MaxLinks, maxFileLinks)
	case !validFanout(uint64(p.ShardFanout)):
		return fmt.Errorf("profile %q: shards of %d links, want a power of two from 8 to 1024", p.Name, p.ShardFanout)
	case p.ShardRule > BlockBytes:
		return fmt.Errorf("profile %q: unknown shard rule %d", p.Name, p.ShardRule)
	}
	return nil
}

// maxFileLinks keeps an interior node within a block: a link with its size takes at most some 200 bytes.
const maxFileLinks = 16 << 10

// LeafPrefix returns the CID prefix of the profile's leaves.
func (p Profile) LeafPrefix() cid.Prefix {
	if p.RawLeaves {
		return cid.Prefix{Version: 1, Codec: cid.Raw, MhType: p.Hash, MhLength: p.digestSize()}
	}
	return p.NodePrefix()
}

// NodePrefix returns the CID prefix of everything that is not a leaf: interior nodes, directories and symlinks.
func (p Profile) NodePrefix() cid.Prefix {
	return cid.Prefix{Version: uint64(p.CIDVersion), Codec: cid.DagProtobuf, MhType: p.Hash, MhLength: p.digestSize()}
}

func (p Profile) digestSize() int {
	h, _ := dray.LookupHash(p.Hash)
	return h.Size
}
