package unixfs

import (
	"math"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// Ref is a finished file, directory or symlink: all that a directory needs to hold it.
type Ref struct {
	// CID is the root block.
	CID cid.Cid
	// Size is the number of content bytes of a file, or of all files in a directory.
	Size int64
	// Tsize is the number of bytes of all blocks from the root down, counting repeated ones every time.
	Tsize int64
}

// Builder builds the interior nodes above a file's leaves. It is fed with leaves in byte order and emits each node as
// soon as it is full, so it needs memory for one node per level and no more. The layout is the balanced one: all
// leaves at the same depth, every node full but the last of its level.
//
// A file that is to be cut at borders of its own has parts: each is built by a Builder as if it were a file, and what
// Finish returned is handed to [Builder.AddNode] of another, for which it is what a leaf is otherwise. The whole is an
// ordinary file, balanced down to the parts, in which each part has the CID that it has anywhere else.
//
// A Builder is good for one file at a time, and not safe for concurrent use.
type Builder struct {
	p      Profile
	emit   func(dray.Block) error
	levels []level // levels[0] collects leaves and parts, levels[i] nodes of levels[i-1]
	depth  int     // how many levels are in use; further ones are room from before a Reset
	first  Ref     // the first leaf or part, which is the root if it stays alone
	err    error
}

// level collects the next node of one level, already encoded: a link as dag-pb and its size as a UnixFS blocksize.
type level struct {
	n     int
	links []byte
	sizes []byte
	sum   Ref // of what is linked; CID unset
}

// NewBuilder returns a Builder for one file. Emit is called with every interior node, children before parents; if it
// fails, the Builder fails with the same error. The profile must be one that passes [Profile.Check].
func NewBuilder(p Profile, emit func(dray.Block) error) *Builder {
	return &Builder{p: p, emit: emit, err: p.Check()}
}

// AddLeaf adds the next leaf: its CID, the length of its content and the length of its block. The block itself stays
// with the caller. It does not allocate, except for room that is used again and for the nodes it emits.
func (b *Builder) AddLeaf(c cid.Cid, contentSize, blockSize int64) error {
	if b.err != nil {
		return b.err
	}
	if !c.Defined() || contentSize < 1 || blockSize < contentSize || blockSize > dray.MaxBlockSize {
		b.err = at("build", c, invalid("leaf of %d bytes with %d bytes of content", blockSize, contentSize))
		return b.err
	}
	leaf := Ref{CID: c, Size: contentSize, Tsize: blockSize}
	if b.depth == 0 {
		b.first = leaf
	}
	b.err = b.push(0, leaf)
	return b.err
}

// AddNode adds the next part of the file: the root of a file that another Builder finished, which must not be empty. The
// part's blocks stay with the caller. Parts and leaves may follow one another. A file of one part is that part.
func (b *Builder) AddNode(part Ref) error {
	if b.err != nil {
		return b.err
	}
	if !part.CID.Defined() || part.Size < 1 || part.Tsize < part.Size {
		b.err = at("build", part.CID, invalid("part of %d bytes in blocks of %d", part.Size, part.Tsize))
		return b.err
	}
	if b.depth == 0 {
		b.first = part
	}
	b.err = b.push(0, part)
	return b.err
}

// Reset makes the Builder ready for another file, as if it were new. It keeps the room that it has.
func (b *Builder) Reset() {
	for i := range b.levels {
		b.levels[i] = level{links: b.levels[i].links[:0], sizes: b.levels[i].sizes[:0]}
	}
	b.depth, b.first = 0, Ref{}
	b.err = b.p.Check()
}

// Finish emits the nodes that are still open and returns the root. A file of one leaf is that leaf. A file without
// leaves is one empty leaf, which Finish emits. The Builder must not be used afterwards, but for Reset.
func (b *Builder) Finish() (Ref, error) {
	if b.err != nil {
		return Ref{}, b.err
	}
	if b.depth == 0 {
		return b.empty()
	}
	if b.depth == 1 && b.levels[0].n == 1 {
		return b.first, nil
	}
	for i := 0; ; i++ {
		root, err := b.flush(i)
		if err != nil {
			return Ref{}, err
		}
		if i == b.depth-1 {
			return root, nil
		}
		if err := b.push(i+1, root); err != nil {
			return Ref{}, err
		}
	}
}

func (b *Builder) empty() (Ref, error) {
	data := b.p.AppendLeafTail(b.p.AppendLeafHead(nil, 0), 0)
	block, err := dray.Hashed(b.p.LeafPrefix(), data)
	if err != nil {
		return Ref{}, err
	}
	return Ref{CID: block.CID(), Tsize: int64(len(data))}, b.emit(block)
}

// push adds a child to level i. A full level is flushed only when one more child comes, so that the last node of a
// level never has no children.
func (b *Builder) push(i int, child Ref) error {
	if i == b.depth {
		if b.depth++; i == len(b.levels) {
			b.levels = append(b.levels, level{})
		}
	}
	if b.levels[i].n == b.p.MaxLinks {
		node, err := b.flush(i)
		if err != nil {
			return err
		}
		if err := b.push(i+1, node); err != nil {
			return err
		}
	}
	l := &b.levels[i]
	if child.Size > math.MaxInt64-l.sum.Size || child.Tsize > math.MaxInt64-l.sum.Tsize-dray.MaxBlockSize {
		return invalid("file size overflows")
	}
	l.n++
	l.links = appendLink(l.links, "", "", child.CID, uint64(child.Tsize))
	l.sizes = protowire.AppendVarint(append(l.sizes, tagBlocksize), uint64(child.Size))
	l.sum.Size += child.Size
	l.sum.Tsize += child.Tsize
	return nil
}

// flush emits the node of level i and empties the level.
func (b *Builder) flush(i int) (Ref, error) {
	l := &b.levels[i]
	msg := 2 + 1 + protowire.SizeVarint(uint64(l.sum.Size)) + len(l.sizes)
	data := make([]byte, 0, len(l.links)+1+protowire.SizeBytes(msg))
	data = append(data, l.links...)
	data = append(data, tagPBData)
	data = protowire.AppendVarint(data, uint64(msg))
	data = append(data, tagType, typeFile, tagFilesize)
	data = protowire.AppendVarint(data, uint64(l.sum.Size))
	data = append(data, l.sizes...)
	root := l.sum
	*l = level{links: l.links[:0], sizes: l.sizes[:0]}
	return seal(b.p, data, root, b.emit)
}

// seal hashes and emits a node, and returns sum as a reference to it.
func seal(p Profile, data []byte, sum Ref, emit func(dray.Block) error) (Ref, error) {
	if len(data) > dray.MaxBlockSize {
		return Ref{}, &dray.Error{Op: "build", Err: dray.ErrTooBig}
	}
	block, err := dray.Hashed(p.NodePrefix(), data)
	if err != nil {
		return Ref{}, err
	}
	sum.CID = block.CID()
	sum.Tsize += int64(len(data))
	return sum, emit(block)
}
