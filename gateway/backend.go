package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/files"
	gw "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/namesys"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"

	"dray"
	"dray/unixfs"
)

// backend is what boxo's handler asks. What is UnixFS it reads with package unixfs; the rest is boxo's own backend's,
// over the same blocks.
type backend struct {
	*gw.BlocksBackend
	g *Gateway
}

var _ gw.IPFSBackend = (*backend)(nil)

func newBackend(g *Gateway) (*backend, error) {
	b, err := gw.NewBlocksBackend(blockservice.New(blockstore{}, nil), gw.WithNameSystem(noNames{}))
	return &backend{b, g}, err
}

// noNames resolves nothing.
type noNames struct{ namesys.NameSystem }

var errNoNames = gw.NewErrorStatusCode(
	errors.New("this gateway serves /ipfs/CID only: no names"), http.StatusNotImplemented)

// Resolve refuses.
func (noNames) Resolve(context.Context, path.Path, ...namesys.ResolveOption) (namesys.Result, error) {
	return namesys.Result{}, errNoNames
}

// ResolvePath implements [gw.IPFSBackend].
func (b *backend) ResolvePath(ctx context.Context, p path.ImmutablePath) (gw.ContentPathMetadata, error) {
	f, err := requestOf(ctx).follow(ctx, p.RootCid(), names(p))
	if errors.Is(err, errForeign) {
		return b.BlocksBackend.ResolvePath(ctx, p)
	}
	return f.metadata(), toBoxo(err)
}

// GetBlock implements [gw.IPFSBackend].
func (b *backend) GetBlock(ctx context.Context, p path.ImmutablePath) (gw.ContentPathMetadata, files.File, error) {
	md, err := b.ResolvePath(ctx, p)
	if err != nil {
		return md, nil, err
	}
	q := requestOf(ctx)
	block, err := q.openBlock(md.LastSegment.RootCid())
	if err != nil {
		return md, nil, toBoxo(err)
	}
	if q.ask.format == formatRaw {
		q.body = block
	}
	return md, block, nil
}

// Head implements [gw.IPFSBackend]. A file's reader stays behind, to be sent from.
func (b *backend) Head(ctx context.Context, p path.ImmutablePath) (gw.ContentPathMetadata, *gw.HeadResponse, error) {
	q := requestOf(ctx)
	way, err := q.follow(ctx, p.RootCid(), names(p))
	md, c := way.metadata(), way.last
	switch {
	case errors.Is(err, errForeign) || err == nil && !isUnixFS(c):
		return b.BlocksBackend.Head(ctx, p)
	case err != nil:
		return md, nil, toBoxo(err)
	}
	q.body, q.way = nil, append(append(q.way, way.visited...), c)
	if c.Type() == cid.DagProtobuf {
		n, err := q.node(ctx, c)
		switch {
		case err != nil:
			return md, nil, toBoxo(err)
		case n.Kind == unixfs.Directory || n.Kind == unixfs.Shard:
			return md, gw.NewHeadResponseForDirectory(weight(&n)), nil
		case n.Kind == unixfs.Symlink:
			return md, gw.NewHeadResponseForSymlink(n.Size), nil
		}
	}
	f, err := q.openFile(c)
	if err != nil {
		return md, nil, toBoxo(err)
	}
	q.body, q.file = f, c
	if q.ask.r.Header.Get("Range") != "" && !f.begins(ctx) {
		md.ContentType, q.guess = anyType, true // to know better would take another block, which nobody asked for
	}
	return md, gw.NewHeadResponseForFile(&beginning{f: f}, f.Size()), nil
}

// Get implements [gw.IPFSBackend]. Boxo asks for directories and symlinks with it, and for what is no UnixFS; files are
// sent otherwise, see [Gateway.ServeHTTP], but for the index of a directory that has come since.
func (b *backend) Get(
	ctx context.Context, p path.ImmutablePath, ranges ...gw.ByteRange,
) (gw.ContentPathMetadata, *gw.GetResponse, error) {
	md, err := b.ResolvePath(ctx, p)
	if err != nil {
		return md, nil, err
	}
	c := md.LastSegment.RootCid()
	if !isUnixFS(c) {
		return b.BlocksBackend.Get(ctx, p, ranges...)
	}
	q := requestOf(ctx)
	if c.Type() == cid.DagProtobuf {
		n, err := q.node(ctx, c)
		switch {
		case err != nil:
			return md, nil, toBoxo(err)
		case n.Kind == unixfs.Directory || n.Kind == unixfs.Shard:
			entries, stop := q.list(c)
			return md, gw.NewGetResponseFromDirectoryListing(uint64(weight(&n)), entries, stop), nil
		case n.Kind == unixfs.Symlink:
			link, ok := files.NewSymlinkFile(string(n.Data), time.Time{}).(*files.Symlink)
			if !ok {
				return md, nil, fmt.Errorf("gateway: a symlink is a %T", link)
			}
			return md, gw.NewGetResponseFromSymlink(link, n.Size), nil
		}
	}
	f, err := q.openFile(c)
	if err != nil {
		return md, nil, toBoxo(err)
	}
	return md, gw.NewGetResponseFromReader(f, f.Size()), nil
}

// GetCAR implements [gw.IPFSBackend].
func (b *backend) GetCAR(
	ctx context.Context, p path.ImmutablePath, params gw.CarParams,
) (gw.ContentPathMetadata, io.ReadCloser, error) {
	q := requestOf(ctx)
	f, err := q.follow(ctx, p.RootCid(), names(p))
	switch {
	case errors.Is(err, errForeign):
		return b.BlocksBackend.GetCAR(ctx, p, params)
	case isNoLink(err):
		// The blocks that show that there is nothing, as boxo does. Nothing is named by the path: the root is that of a
		// probe.
		s := newCARStream(q, gw.EmptyIdentityCID, f.visited, params)
		return gw.ContentPathMetadata{LastSegment: path.FromCid(p.RootCid())}, s, nil
	case err != nil:
		return f.metadata(), nil, toBoxo(err)
	}
	s, err := q.openCAR(ctx, f, params)
	if err != nil {
		return f.metadata(), nil, toBoxo(err)
	}
	return f.metadata(), s, nil
}

// IsCached implements [gw.IPFSBackend]. It was looked before.
func (b *backend) IsCached(ctx context.Context, _ path.Path) bool { return requestOf(ctx).ask.cached }

// GetIPNSRecord implements [gw.IPFSBackend]: there are none.
func (b *backend) GetIPNSRecord(context.Context, cid.Cid) ([]byte, error) { return nil, errNoNames }

// ResolveMutable implements [gw.IPFSBackend] for what is immutable.
func (b *backend) ResolveMutable(_ context.Context, p path.Path) (path.ImmutablePath, time.Duration, time.Time, error) {
	if p.Mutable() {
		return path.ImmutablePath{}, 0, time.Time{}, errNoNames
	}
	ip, err := path.NewImmutablePath(p)
	return ip, 0, time.Time{}, err
}

// GetDNSLinkRecord implements [gw.IPFSBackend]: there are none.
func (b *backend) GetDNSLinkRecord(context.Context, string) (path.Path, error) {
	return nil, errNoNames
}

// node reads a block of UnixFS.
func (q *request) node(ctx context.Context, c cid.Cid) (unixfs.Node, error) {
	if n, ok := q.Node(c); ok {
		return n, nil
	}
	b, err := q.Get(ctx, c)
	if err != nil {
		return unixfs.Node{}, err
	}
	n, err := unixfs.Parse(b)
	if err == nil {
		q.Keep(c, n)
	}
	return n, err
}

// weight returns what all below a directory weighs, as far as it says so.
func weight(n *unixfs.Node) (size int64) {
	for _, l := range n.Links {
		if l.Tsize > 0 && size+l.Tsize > 0 {
			size += l.Tsize
		}
	}
	return size
}

// file is a file's content as it is sent.
type file struct {
	*unixfs.Reader
	q *request
	c cid.Cid
}

const readAhead = 32 << 20 // bytes asked for beyond where is read, once something was missing

// openFile returns a file. It is read as long as the request lasts, whatever becomes of the context that boxo asks in.
func (q *request) openFile(c cid.Cid) (*file, error) {
	r, err := unixfs.NewReader(q.ctx, q.getter(), c, unixfs.ReaderConfig{
		Ahead: q.ahead, AheadBytes: readAhead, Nodes: q,
	})
	if err != nil {
		return nil, err
	}
	return &file{r, q, c}, nil
}

// Close does nothing, as the file is read again: the request closes what it opened.
func (f *file) Close() error { return nil }

// anyType is the Content-Type of a file of which nothing is known.
const anyType = "application/octet-stream"

// sniffed is how many bytes tell the type of a file.
const sniffed = 3 << 10

// beginning is the beginning of a file, for finding out its type. It never fails: what is wrong with the file is told when it
// is sent, if it concerns what was asked for.
type beginning struct {
	f    *file
	rest []byte
	read bool
}

// Read implements [io.Reader].
func (b *beginning) Read(p []byte) (int, error) {
	if !b.read {
		b.read = true
		b.rest = make([]byte, sniffed)
		n, err := io.ReadFull(b.f, b.rest)
		b.rest = b.rest[:n]
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			b.f.q.guess = true
		}
	}
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close does nothing.
func (b *beginning) Close() error { return nil }

// begins reports whether the beginning of the file is local.
func (f *file) begins(ctx context.Context) bool {
	if f.q.g.parts == nil {
		return true
	}
	local := unixfs.ReaderConfig{}
	r, err := unixfs.NewReader(ctx, localOf{f.q}, f.c, local)
	if err != nil {
		return false
	}
	_, err = r.Read(make([]byte, 1))
	return err == nil || errors.Is(err, io.EOF)
}

// localOf is what of a request's blocks is local.
type localOf struct{ q *request }

// Get implements [dray.Getter].
func (l localOf) Get(ctx context.Context, c cid.Cid) (dray.Block, error) {
	if !l.q.g.cfg.Public(c) {
		return dray.Block{}, dray.ErrNotFound
	}
	return l.q.g.cfg.Local.Get(ctx, c)
}

// GetPart implements [dray.PartGetter].
func (l localOf) GetPart(ctx context.Context, c cid.Cid, p []byte, offset int64) (n int, size int64, err error) {
	return partsOf{l.q}.GetPart(ctx, c, p, offset)
}

// blockFile is a block as it is sent: an [io.ReadSeeker], and a [files.File] for boxo. Blocks that need no hashing are
// read by parts.
type blockFile struct {
	q    *request
	c    cid.Cid
	size int64
	at   int64
	data []byte // the block, if it is not read by parts
}

var _ files.File = (*blockFile)(nil)

// openBlock returns a block as a file.
func (q *request) openBlock(c cid.Cid) (*blockFile, error) {
	f := &blockFile{q: q, c: c}
	if q.g.parts != nil {
		var err error
		if _, f.size, err = (partsOf{q}).GetPart(q.ctx, c, nil, 0); err == nil {
			return f, nil
		}
	}
	b, err := q.Get(q.ctx, c)
	if err != nil {
		return nil, err
	}
	f.size, f.data = int64(b.Size()), b.Data()
	if q.g.parts != nil {
		if _, size, err := (partsOf{q}).GetPart(q.ctx, c, nil, 0); err == nil && size == f.size {
			f.data = nil // it is where it can be read by parts now
		}
	}
	return f, nil
}

// Read implements [io.Reader].
func (f *blockFile) Read(p []byte) (int, error) {
	switch {
	case f.at >= f.size:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	n := 0
	if f.data == nil {
		m, size, err := partsOf{f.q}.GetPart(f.q.ctx, f.c, p, f.at)
		if err == nil && size == f.size {
			n = m
		} else {
			b, err := f.q.Get(f.q.ctx, f.c)
			if err != nil {
				return 0, err
			}
			if int64(b.Size()) != f.size {
				return 0, fmt.Errorf("%w: %v was %d bytes long", dray.ErrChanged, f.c, f.size)
			}
			f.data = b.Data()
		}
	}
	if n == 0 {
		n = copy(p, f.data[f.at:])
	}
	f.at += int64(n)
	return n, nil
}

// Seek implements [io.Seeker].
func (f *blockFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, errors.New("seek: before the beginning of the block")
	}
	f.at = offset
	return offset, nil
}

// Close does nothing.
func (f *blockFile) Close() error { return nil }

// Size returns the block's length.
func (f *blockFile) Size() (int64, error) { return f.size, nil }

// Mode returns 0: a block has none.
func (f *blockFile) Mode() os.FileMode { return 0 }

// ModTime returns the zero time: a block has none.
func (f *blockFile) ModTime() time.Time { return time.Time{} }
