package unixfs

import (
	"math"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// AppendLeafHead appends the bytes that stand before the content in the profile's leaves. A leaf's block is head,
// content and tail, in that order; raw leaves have neither head nor tail.
func (p Profile) AppendLeafHead(dst []byte, contentSize int64) []byte {
	if p.RawLeaves {
		return dst
	}
	n := uint64(contentSize)
	dst = append(dst, tagPBData)
	dst = protowire.AppendVarint(dst, uint64(leafMessage(contentSize)))
	dst = append(dst, tagType, typeFile)
	if n > 0 {
		dst = append(dst, tagData)
		dst = protowire.AppendVarint(dst, n)
	}
	return dst
}

// AppendLeafTail appends the bytes that stand after the content in the profile's leaves.
func (p Profile) AppendLeafTail(dst []byte, contentSize int64) []byte {
	if p.RawLeaves {
		return dst
	}
	return protowire.AppendVarint(append(dst, tagFilesize), uint64(contentSize))
}

// LeafFrame returns the bytes that stand before and after size bytes of content in a leaf with the CID c, as every profile
// here writes them: none around a raw leaf. A dag-pb leaf made by somebody else may be framed otherwise; then a block built
// from this does not hash to c. It returns [ErrCodec] for other codecs.
func LeafFrame(c cid.Cid, size int64) (head, tail []byte, err error) {
	switch c.Type() {
	case cid.Raw:
		return nil, nil, nil
	case cid.DagProtobuf:
		p := V0()
		return p.AppendLeafHead(nil, size), p.AppendLeafTail(nil, size), nil
	}
	return nil, nil, at("frame", c, ErrCodec)
}

// LeafBlockSize returns the length in bytes of the block of a leaf with contentSize bytes of content.
func (p Profile) LeafBlockSize(contentSize int64) int64 {
	if p.RawLeaves {
		return contentSize
	}
	m := leafMessage(contentSize)
	return 1 + int64(protowire.SizeVarint(uint64(m))) + m
}

// leafMessage returns the length of the UnixFS message inside a dag-pb leaf.
func leafMessage(contentSize int64) int64 {
	v := int64(protowire.SizeVarint(uint64(contentSize)))
	if contentSize == 0 {
		return 2 + 1 + v
	}
	return 2 + 1 + v + contentSize + 1 + v
}

// SplitLeaf cuts the block of a leaf into the bytes before its content, the content and the bytes after it. The three
// slices share block's memory. It takes any leaf: raw, or a dag-pb node of UnixFS type File or Raw with its content
// inline, however it was encoded, and also an interior node that carries some content of its own before that of its
// links. A leaf without content has it all in head.
//
// It returns an [*dray.Error] wrapping [ErrNotLeaf] for a block that holds no content in one piece (an interior node,
// a directory, a symlink) and [ErrInvalid] or [ErrNotUnixFS] for one that cannot be read. It does not hash the block,
// and it does not allocate unless it fails.
func SplitLeaf(c cid.Cid, block []byte) (head, content, tail []byte, err error) {
	if c.Type() == cid.Raw {
		return nil, block, nil, nil
	}
	at0, links, err := leafSpan(c, block)
	if err != nil {
		return nil, nil, nil, at("split", c, err)
	}
	if at0.from == at0.to && links > 0 {
		return nil, nil, nil, at("split", c, ErrNotLeaf)
	}
	return block[:at0.from], block[at0.from:at0.to], block[at0.to:], nil
}

// leafSpan returns where a dag-pb file node's inline content lies, and how many links it has.
func leafSpan(c cid.Cid, block []byte) (content span, links int, err error) {
	if c.Type() != cid.DagProtobuf {
		return span{}, 0, ErrNotUnixFS
	}
	n, err := scanPB(block)
	if err != nil {
		return span{}, 0, err
	}
	if !n.hasData {
		return span{}, 0, ErrNotUnixFS
	}
	d, err := scanFS(n.data.of(block), nil)
	if err != nil {
		return span{}, 0, err
	}
	if d.typ != typeFile && d.typ != typeRaw {
		return span{}, 0, ErrNotLeaf
	}
	if d.blocksizes != n.links {
		return span{}, 0, invalid("%d blocksizes for %d links", d.blocksizes, n.links)
	}
	if _, err := d.size(); err != nil {
		return span{}, 0, err
	}
	if !d.hasData {
		return span{len(block), len(block)}, n.links, nil
	}
	return span{n.data.from + d.data.from, n.data.from + d.data.to}, n.links, nil
}

// size returns the number of content bytes in and under a file node, if its numbers agree.
func (d fsData) size() (int64, error) {
	own := uint64(d.data.to - d.data.from)
	total := own + d.below
	if total > math.MaxInt64 {
		return 0, invalid("size overflows")
	}
	if d.hasFilesize && d.filesize != total {
		return 0, invalid("says it holds %d bytes, but has %d inline and %d under its links", d.filesize, own, d.below)
	}
	return int64(total), nil
}

// Content returns the content of a leaf's block. It is the middle part of [SplitLeaf].
func Content(b dray.Block) ([]byte, error) {
	_, content, _, err := SplitLeaf(b.CID(), b.Data())
	return content, err
}
