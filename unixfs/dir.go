package unixfs

import (
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"dray"
)

// DirBuilder builds a directory from entries in any order: one block, or a tree of shards if the profile says so. It
// holds all entries until Finish. A DirBuilder is good for one directory, and not safe for concurrent use.
type DirBuilder struct {
	p       Profile
	emit    func(dray.Block) error
	entries []dirEntry
	sum     Ref
}

// NewDirBuilder returns a DirBuilder for one directory. Emit is called by Finish with every block, children before
// parents.
func NewDirBuilder(p Profile, emit func(dray.Block) error) *DirBuilder {
	return &DirBuilder{p: p, emit: emit}
}

// Add adds an entry. It returns an error wrapping [ErrInvalid] for a name that fails [CheckName].
func (d *DirBuilder) Add(name string, child Ref) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if !child.CID.Defined() || child.Size < 0 || child.Tsize < 0 {
		return invalid("entry %q: no CID or a negative size", name)
	}
	if child.Size > math.MaxInt64-d.sum.Size || child.Tsize > math.MaxInt64/2-d.sum.Tsize {
		return invalid("directory size overflows at %q", name)
	}
	d.sum.Size += child.Size
	d.sum.Tsize += child.Tsize
	d.entries = append(d.entries, dirEntry{name: name, ref: child})
	return nil
}

// Finish emits the directory and returns its root. Its Size is the sum of the entries'. It returns an error wrapping
// [ErrInvalid] if a name was added twice. The DirBuilder must not be used afterwards.
func (d *DirBuilder) Finish() (Ref, error) {
	if err := d.p.Check(); err != nil {
		return Ref{}, err
	}
	slices.SortFunc(d.entries, func(a, b dirEntry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(d.entries); i++ {
		if d.entries[i-1].name == d.entries[i].name {
			return Ref{}, invalid("name %q twice", d.entries[i].name)
		}
	}
	links := 0 // bytes of all links in one block
	for _, e := range d.entries {
		links += linkSize(e.ref.CID.ByteLen(), len(e.name), uint64(e.ref.Tsize))
	}
	if d.p.ShardThreshold > 0 && d.measure(links) > d.p.ShardThreshold {
		return d.buildShards(d.entries)
	}
	block := make([]byte, 0, links+len(emptyDir))
	for _, e := range d.entries {
		block = appendLink(block, "", e.name, e.ref.CID, uint64(e.ref.Tsize))
	}
	return seal(d.p, append(block, emptyDir...), d.sum, d.emit)
}

// emptyDir is the block of a directory without entries, and the end of every other: Data holding type Directory.
const emptyDir = "\x0a\x02\x08\x01"

// measure returns the directory's size by the profile's rule, given what the links weigh in a block.
func (d *DirBuilder) measure(links int) int64 {
	if d.p.ShardRule == BlockBytes {
		return int64(links + len(emptyDir))
	}
	var n int64
	for _, e := range d.entries {
		n += int64(len(e.name) + e.ref.CID.ByteLen())
	}
	return n
}

// emitNode emits a node of encoded links and a UnixFS message.
func (d *DirBuilder) emitNode(links, msg []byte, sum Ref) (Ref, error) {
	links = append(links, tagPBData)
	return seal(d.p, protowire.AppendBytes(links, msg), sum, d.emit)
}

// BuildSymlink emits a symbolic link to target and returns it. The target is not interpreted.
func BuildSymlink(p Profile, target string, emit func(dray.Block) error) (Ref, error) {
	if err := p.Check(); err != nil {
		return Ref{}, err
	}
	if target == "" || strings.Contains(target, "\x00") {
		return Ref{}, invalid("symlink to %q", target)
	}
	msg := protowire.AppendString([]byte{tagType, typeSymlink, tagData}, target)
	return seal(p, protowire.AppendBytes([]byte{tagPBData}, msg), Ref{}, emit)
}
