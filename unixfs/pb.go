package unixfs

import (
	"bytes"
	"fmt"
	"math"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// Tag bytes of the two protobuf messages. Every field number is below 16, so every tag is one byte.
const (
	tagPBData  = 1<<3 | byte(protowire.BytesType) // PBNode.Data
	tagPBLinks = 2<<3 | byte(protowire.BytesType) // PBNode.Links
	tagHash    = 1<<3 | byte(protowire.BytesType) // PBLink.Hash
	tagName    = 2<<3 | byte(protowire.BytesType) // PBLink.Name
	tagTsize   = 3<<3 | byte(protowire.VarintType)

	tagType      = 1<<3 | byte(protowire.VarintType) // UnixFS Data.Type
	tagData      = 2<<3 | byte(protowire.BytesType)
	tagFilesize  = 3<<3 | byte(protowire.VarintType)
	tagBlocksize = 4<<3 | byte(protowire.VarintType)
	tagHashType  = 5<<3 | byte(protowire.VarintType)
	tagFanout    = 6<<3 | byte(protowire.VarintType)
)

// The values of UnixFS Data.Type.
const (
	typeRaw       = 0
	typeDirectory = 1
	typeFile      = 2
	typeSymlink   = 4
	typeShard     = 5
)

// span is a range of bytes within a block.
type span struct{ from, to int }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }

// pbNode is what a first pass over a dag-pb block finds.
type pbNode struct {
	data    span
	hasData bool
	links   int  // how many
	linksAt span // from the first link's tag to the end of the last link
}

// scanPB reads the outer message of a dag-pb block. As the dag-pb specification wants, Data may stand before or after
// the Links but not between them, and nothing else may stand there.
func scanPB(b []byte) (pbNode, error) {
	var n pbNode
	closed := false // the links ended, because Data followed them
	for pos := 0; pos < len(b); {
		start := pos
		num, typ, k := protowire.ConsumeTag(b[pos:])
		if k < 0 || typ != protowire.BytesType {
			return n, invalid("dag-pb: bad field at byte %d", start)
		}
		pos += k
		size, k := protowire.ConsumeVarint(b[pos:])
		if k < 0 || size > uint64(len(b)-pos-k) {
			return n, invalid("dag-pb: field at byte %d runs beyond the block", start)
		}
		pos += k
		end := pos + int(size)
		switch num {
		case 1:
			if n.hasData {
				return n, invalid("dag-pb: Data twice")
			}
			n.data, n.hasData = span{pos, end}, true
			closed = n.links > 0
		case 2:
			if closed {
				return n, invalid("dag-pb: Data between Links")
			}
			if n.links == 0 {
				n.linksAt.from = start
			}
			n.links++
			n.linksAt.to = end
		default:
			return n, invalid("dag-pb: field %d in a node", num)
		}
		pos = end
	}
	return n, nil
}

// pbLink is one link of a dag-pb block, still in the block's bytes.
type pbLink struct {
	hash, name []byte
	tsize      uint64
	hasTsize   bool
}

// nextLink reads the first link of b, which is the linksAt range of a node that scanPB accepted, and returns the
// rest.
func nextLink(b []byte) (l pbLink, rest []byte, err error) {
	_, _, k := protowire.ConsumeTag(b)
	msg, m := protowire.ConsumeBytes(b[k:])
	if m < 0 {
		return l, nil, invalid("dag-pb: link runs beyond the block")
	}
	rest = b[k+m:]
	last := protowire.Number(0)
	for len(msg) > 0 {
		num, typ, k := protowire.ConsumeTag(msg)
		if k < 0 || num <= last || num > 3 {
			return l, nil, invalid("dag-pb: bad field in a link")
		}
		msg, last = msg[k:], num
		want := protowire.BytesType
		if num == 3 {
			want = protowire.VarintType
		}
		if typ != want {
			return l, nil, invalid("dag-pb: field %d of a link has the wrong type", num)
		}
		switch num {
		case 1:
			l.hash, k = protowire.ConsumeBytes(msg)
		case 2:
			l.name, k = protowire.ConsumeBytes(msg)
		case 3:
			l.tsize, k = protowire.ConsumeVarint(msg)
			l.hasTsize = true
		}
		if k < 0 {
			return l, nil, invalid("dag-pb: field %d of a link runs beyond it", num)
		}
		msg = msg[k:]
	}
	if l.hash == nil {
		return l, nil, invalid("dag-pb: link without a CID")
	}
	return l, rest, nil
}

// cidReader turns the bytes of links into CIDs and checks that their blocks could be verified. Siblings almost always
// share version, codec, hash function and digest length, so only a change of those bytes is checked in full.
type cidReader struct{ prefix []byte }

func (r *cidReader) read(b []byte) (cid.Cid, error) {
	n, c, err := cid.CidFromBytes(b)
	if err != nil {
		return cid.Undef, invalid("link: %v", err)
	}
	if n != len(b) {
		return cid.Undef, invalid("link: %d bytes after the CID", len(b)-n)
	}
	const shortest = 2 // a version 0 CID begins with hash function and length, then 32 bytes
	if p := len(b) - 32; p >= shortest && len(r.prefix) == p && bytes.Equal(r.prefix, b[:p]) {
		return c, nil
	}
	if err := dray.CheckCID(c); err != nil {
		return cid.Undef, fmt.Errorf("%w: link: %w", ErrInvalid, err)
	}
	if p := len(b) - 32; p >= shortest {
		r.prefix = b[:p]
	}
	return c, nil
}

// fsData is the UnixFS message inside a node's Data.
type fsData struct {
	typ               uint64
	hasType           bool
	data              span // within the message
	hasData           bool
	filesize          uint64
	hasFilesize       bool
	blocksizes        int    // how many
	below             uint64 // their sum
	hashType, fanout  uint64
	hasHashT, hasFanT bool
}

// scanFS reads a UnixFS message. The i-th blocksize is stored in links[i].Size; with a nil links they are only
// counted. Unknown fields, mode and mtime among them, are skipped.
func scanFS(b []byte, links []Link) (fsData, error) {
	var d fsData
	for pos := 0; pos < len(b); {
		num, typ, k := protowire.ConsumeTag(b[pos:])
		if k < 0 {
			return d, invalid("UnixFS: bad field at byte %d", pos)
		}
		pos += k
		switch {
		case typ == protowire.VarintType && num <= 6 && num != 2:
			v, k := protowire.ConsumeVarint(b[pos:])
			if k < 0 {
				return d, invalid("UnixFS: bad number at byte %d", pos)
			}
			pos += k
			if err := d.number(num, v, links); err != nil {
				return d, err
			}
		case typ == protowire.BytesType && (num == 2 || num == 4):
			v, k := protowire.ConsumeBytes(b[pos:])
			if k < 0 {
				return d, invalid("UnixFS: field %d runs beyond the message", num)
			}
			pos += k
			if num == 2 {
				if d.hasData {
					return d, invalid("UnixFS: Data twice")
				}
				d.data, d.hasData = span{pos - len(v), pos}, true
				continue
			}
			for len(v) > 0 { // blocksizes may also be packed
				n, k := protowire.ConsumeVarint(v)
				if k < 0 {
					return d, invalid("UnixFS: bad packed blocksizes")
				}
				v = v[k:]
				if err := d.number(4, n, links); err != nil {
					return d, err
				}
			}
		case num <= 6:
			return d, invalid("UnixFS: field %d has the wrong type", num)
		default:
			k := protowire.ConsumeFieldValue(num, typ, b[pos:])
			if k < 0 {
				return d, invalid("UnixFS: bad field %d", num)
			}
			pos += k
		}
	}
	if !d.hasType {
		return d, invalid("UnixFS: no type")
	}
	return d, nil
}

func (d *fsData) number(num protowire.Number, v uint64, links []Link) error {
	switch num {
	case 1:
		d.typ, d.hasType = v, true
	case 3:
		d.filesize, d.hasFilesize = v, true
	case 4:
		if v > math.MaxInt64 || d.below+v > math.MaxInt64 {
			return invalid("UnixFS: blocksizes overflow")
		}
		if links != nil {
			if d.blocksizes >= len(links) {
				return invalid("UnixFS: more blocksizes than the %d links", len(links))
			}
			links[d.blocksizes].Size = int64(v)
		}
		d.blocksizes++
		d.below += v
	case 5:
		d.hashType, d.hasHashT = v, true
	case 6:
		d.fanout, d.hasFanT = v, true
	}
	return nil
}

// appendLink appends a link as it stands in a dag-pb node. Name and Tsize are always written, even when empty,
// because every importer that made CIDs worth matching did so.
func appendLink(dst []byte, prefix, name string, c cid.Cid, tsize uint64) []byte {
	key := c.KeyString()
	n := len(prefix) + len(name)
	dst = append(dst, tagPBLinks)
	dst = protowire.AppendVarint(dst, uint64(linkBody(len(key), n, tsize)))
	dst = append(dst, tagHash)
	dst = protowire.AppendVarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = append(dst, tagName)
	dst = protowire.AppendVarint(dst, uint64(n))
	dst = append(dst, prefix...)
	dst = append(dst, name...)
	dst = append(dst, tagTsize)
	return protowire.AppendVarint(dst, tsize)
}

// linkBody returns the length of a PBLink message.
func linkBody(cidLen, nameLen int, tsize uint64) int {
	return 1 + protowire.SizeBytes(cidLen) + 1 + protowire.SizeBytes(nameLen) + 1 + protowire.SizeVarint(tsize)
}

// linkSize returns how many bytes a link adds to a dag-pb node.
func linkSize(cidLen, nameLen int, tsize uint64) int {
	return 1 + protowire.SizeBytes(linkBody(cidLen, nameLen, tsize))
}
