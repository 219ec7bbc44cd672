package unixfs

import (
	"fmt"
	"math"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
)

// Kind says what a block is to a file system.
type Kind uint8

const (
	// Raw is a leaf that is nothing but content.
	Raw Kind = iota
	// File is a dag-pb node of a file: a leaf with inline content, an interior node with links, or both.
	File
	// Directory is a directory in one block.
	Directory
	// Shard is a node of a directory that is spread over a tree of blocks.
	Shard
	// Symlink is a symbolic link.
	Symlink
	// Unknown is what a shallow [Walk] did not look into. [Parse] never gives it.
	Unknown
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case Raw:
		return "raw leaf"
	case File:
		return "file"
	case Directory:
		return "directory"
	case Shard:
		return "directory shard"
	case Symlink:
		return "symlink"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Node is a block as [Parse] understands it. It shares memory with the block.
type Node struct {
	// Kind says which of the other fields mean something.
	Kind Kind
	// Size is the number of content bytes in and under a Raw or File node, or the length of a Symlink's target.
	Size int64
	// Data is a Raw or File node's own content, which comes before that of its links, or a Symlink's target.
	Data []byte
	// Links are a File node's children in byte order, a Directory's entries, or a Shard's slots in order.
	Links []Link
	// Fanout is the number of slots that a Shard has, filled or not.
	Fanout int
}

// Link is one link of a [Node].
type Link struct {
	// Name is a Directory entry's name. In a Shard it is the entry's name, or empty for a link to a deeper shard. In a
	// File it means nothing.
	Name string
	// CID is the block that is linked to.
	CID cid.Cid
	// Size is the number of content bytes in and under a File's child. In a Directory or Shard it is 0.
	Size int64
	// Tsize is what all blocks under the link claim to weigh, or -1 when the link does not say.
	Tsize int64
	// Slot is the place of a Shard's link, from 0 up to Fanout-1.
	Slot int
}

// Parse reads a block and checks that it makes sense: every number agrees with every other, no total overflows, names
// are unique, and a shard's links are what its bitmap says. It does not judge names ([CheckName] does), and takes
// what the block says about its children as said.
//
// It returns an [*dray.Error] wrapping [ErrNotUnixFS] for a block that is something else (another codec, or dag-pb
// without a UnixFS message) and [ErrInvalid] for one that makes no sense.
func Parse(b dray.Block) (Node, error) {
	n, err := parse(b.CID(), b.Data())
	return n, at("parse", b.CID(), err)
}

func parse(c cid.Cid, block []byte) (Node, error) {
	switch c.Type() {
	case cid.Raw:
		return Node{Kind: Raw, Size: int64(len(block)), Data: block}, nil
	case cid.DagProtobuf:
	default:
		return Node{}, ErrNotUnixFS
	}
	pb, err := scanPB(block)
	if err != nil {
		return Node{}, err
	}
	if !pb.hasData {
		return Node{}, ErrNotUnixFS
	}
	msg := pb.data.of(block)
	var links []Link
	if pb.links > 0 {
		links = make([]Link, pb.links)
	}
	d, err := scanFS(msg, links)
	if err != nil {
		return Node{}, err
	}
	if err := readLinks(pb.linksAt.of(block), links, d.typ != typeFile && d.typ != typeRaw); err != nil {
		return Node{}, err
	}
	n := Node{Data: d.data.of(msg), Links: links}
	switch d.typ {
	case typeFile, typeRaw:
		n.Kind = File
		if d.blocksizes != len(links) {
			return Node{}, invalid("%d blocksizes for %d links", d.blocksizes, len(links))
		}
		n.Size, err = d.size()
		return n, err
	case typeDirectory:
		n.Kind, n.Data = Directory, nil
		if d.blocksizes != 0 {
			return Node{}, invalid("directory with blocksizes")
		}
		return n, uniqueNames(links)
	case typeShard:
		n.Kind, n.Data = Shard, nil
		n.Fanout, err = checkShard(d, d.data.of(msg), links)
		return n, err
	case typeSymlink:
		n.Kind, n.Size = Symlink, int64(len(n.Data))
		if len(links) > 0 {
			return Node{}, invalid("symlink with links")
		}
		return n, nil
	}
	return Node{}, fmt.Errorf("%w: UnixFS type %d", ErrNotUnixFS, d.typ)
}

// readLinks decodes the links of a node, except for Size, which comes from elsewhere.
func readLinks(b []byte, links []Link, named bool) error {
	var r cidReader
	for i := range links {
		var l pbLink
		var err error
		if l, b, err = nextLink(b); err != nil {
			return err
		}
		if links[i].CID, err = r.read(l.hash); err != nil {
			return err
		}
		if named {
			links[i].Name = string(l.name)
		}
		links[i].Tsize = -1
		if l.hasTsize {
			if l.tsize > math.MaxInt64 {
				return invalid("Tsize %d", l.tsize)
			}
			links[i].Tsize = int64(l.tsize)
		}
	}
	return nil
}

// uniqueNames checks that no name occurs twice. Directories are written in order of name, so comparing neighbours
// usually settles it.
func uniqueNames(links []Link) error {
	sorted := true
	for i := 1; i < len(links) && sorted; i++ {
		sorted = links[i-1].Name < links[i].Name
	}
	if sorted {
		return nil
	}
	seen := make(map[string]struct{}, len(links))
	for _, l := range links {
		if _, twice := seen[l.Name]; twice {
			return invalid("name %q twice", l.Name)
		}
		seen[l.Name] = struct{}{}
	}
	return nil
}

// CheckName returns an error wrapping [ErrInvalid] if name cannot be an entry of a directory on disk: empty, ".",
// "..", or with a slash or a NUL in it. Whoever writes files must use no name that fails; [Walk] refuses them itself.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return invalid("name %q", name)
	}
	return nil
}

// lookup returns the entry of a Directory called name.
func (n *Node) lookup(name string) (Link, bool) {
	for _, l := range n.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}
