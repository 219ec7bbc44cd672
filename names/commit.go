package names

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"dray"
)

// A commit is kept as blocks of dag-cbor: a head and, when there are many files, pages. Everything is in the one canonical form
// that dag-cbor has, so that equal commits are equal blocks.
//
//	head  {"id": bytes 20, "dir": bytes or null, "kind": int, "name": text, "time": int, "files": [file…], "pages": [link…], "dray": 1}
//	page  [file…]
//	file  [path text, size int, blob bytes 20, sha256 bytes 32 or null, root bytes or null]
//
// Time is in milliseconds since 1970. Dir and root are CIDs as bytes rather than links, so that whoever keeps a commit keeps the
// head and the pages, and no more files than he wants.

// Bounds of commits.
const (
	// MaxFiles is how many files a commit may have.
	MaxFiles = 1 << 20
	// MaxCommitBlock is how many bytes a head or a page may have.
	MaxCommitBlock = 1 << 20

	pageBytes = 768 << 10 // files are put into a page until it has so many bytes
	mostPages = MaxFiles*maxFileBytes/pageBytes + 1
	// maxFileBytes bounds what a file takes in a page.
	maxFileBytes = MaxPath + 256
)

// ErrBadCommit means that a commit breaks the rules, or that blocks are no commit.
var ErrBadCommit = errors.New("bad commit")

func badf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadCommit, fmt.Errorf(format, args...))
}

// Find returns the file at a path, and whether there is one.
func (c *Commit) Find(path string) (File, bool) {
	i, ok := slices.BinarySearchFunc(c.Files, path, func(f File, p string) int { return cmp.Compare(f.Path, p) })
	if !ok {
		return File{}, false
	}
	return c.Files[i], true
}

// Check says, wrapping [ErrBadCommit], what is wrong with the commit.
func (c *Commit) Check() error {
	switch {
	case c.Repo.Check() != nil:
		return badf("%w", c.Repo.Check())
	case !IsCommit(c.ID):
		return badf("the id %q is not forty hexadecimal digits", clip(c.ID))
	case len(c.Files) > MaxFiles:
		return badf("%d files are more than %d", len(c.Files), MaxFiles)
	case c.Time.UnixMilli() < 0:
		return badf("it was made before 1970")
	}
	for i := range c.Files {
		f := &c.Files[i]
		if err := f.Check(); err != nil {
			return err
		}
		if i > 0 && c.Files[i-1].Path >= f.Path {
			return badf("%q stands after %q", f.Path, c.Files[i-1].Path)
		}
		for at, ch := range f.Path { // no file is a directory as well
			if ch == '/' {
				if _, both := c.Find(f.Path[:at]); both {
					return badf("%q is a file and a directory", f.Path[:at])
				}
			}
		}
	}
	return nil
}

// Check says, wrapping [ErrBadCommit], what is wrong with the file by itself.
func (f *File) Check() error {
	if err := CheckPath(f.Path); err != nil {
		return badf("%w", err)
	}
	switch {
	case f.Size < 0:
		return badf("%q has %d bytes", f.Path, f.Size)
	case !IsCommit(f.Blob):
		return badf("%q has the blob id %q", f.Path, clip(f.Blob))
	case f.SHA256 != "" && !IsSHA256(f.SHA256):
		return badf("%q has the digest %q", f.Path, clip(f.SHA256))
	case f.Root.Defined() && dray.CheckCID(f.Root) != nil:
		return badf("%q: %w", f.Path, dray.CheckCID(f.Root))
	}
	return nil
}

// Blocks returns the commit as blocks: the pages, if it needs any, and the head last, by whose CID the commit is found again.
// The error wraps [ErrBadCommit].
func (c *Commit) Blocks() ([]dray.Block, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	var (
		blocks []dray.Block
		pages  []cid.Cid
		page   []byte
		count  int
	)
	flush := func() error {
		b, err := block(append(appendHead(nil, majorArray, uint64(count)), page...))
		blocks, pages, page, count = append(blocks, b), append(pages, b.CID()), page[:0], 0
		return err
	}
	for i := range c.Files {
		page = c.Files[i].append(page)
		if count++; len(page) >= pageBytes {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if len(pages) > 0 && count > 0 {
		if err := flush(); err != nil {
			return nil, err
		}
	}
	id, err := hex.DecodeString(c.ID)
	if err != nil {
		return nil, badf("%w", err)
	}
	// The keys in the order of dag-cbor: shorter ones first, then by their bytes.
	h := appendHead(nil, majorMap, 8)
	h = appendBytes(appendText(h, "id"), id)
	h = appendCIDBytes(appendText(h, "dir"), c.Dir)
	h = appendHead(appendText(h, "dray"), majorUint, commitVersion)
	h = appendHead(appendText(h, "kind"), majorUint, uint64(c.Repo.Kind))
	h = appendText(appendText(h, "name"), c.Repo.Name)
	h = appendHead(appendText(h, "time"), majorUint, uint64(c.Time.UnixMilli()))
	h = append(appendHead(appendText(h, "files"), majorArray, uint64(count)), page...)
	h = appendHead(appendText(h, "pages"), majorArray, uint64(len(pages)))
	for _, p := range pages {
		h = appendLink(h, p)
	}
	head, err := block(h)
	return append(blocks, head), err
}

const commitVersion = 1

func block(data []byte) (dray.Block, error) {
	if len(data) > MaxCommitBlock {
		return dray.Block{}, badf("a block of %d bytes is larger than %d", len(data), MaxCommitBlock)
	}
	return dray.Hashed(cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: multihash.SHA2_256, MhLength: 32}, data)
}

// append writes the file as it stands in a page.
func (f *File) append(dst []byte) []byte {
	dst = appendHead(dst, majorArray, 5)
	dst = appendText(dst, f.Path)
	dst = appendHead(dst, majorUint, uint64(f.Size))
	dst = appendHex(dst, f.Blob)
	dst = appendHex(dst, f.SHA256)
	return appendCIDBytes(dst, f.Root)
}

// ReadCommit gets the blocks of a commit from g and reads them. The error is one of g's, or wraps [ErrBadCommit].
func ReadCommit(ctx context.Context, g dray.Getter, head cid.Cid) (*Commit, error) {
	b, err := g.Get(ctx, head)
	if err != nil {
		return nil, err
	}
	c, pages, err := parseHead(b.Data())
	if err != nil {
		return nil, &dray.Error{Op: "read commit", CID: head, Err: err}
	}
	for _, p := range pages {
		b, err := g.Get(ctx, p)
		if err != nil {
			return nil, err
		}
		if c.Files, err = parsePage(b.Data(), c.Files); err != nil {
			return nil, &dray.Error{Op: "read commit", CID: p, Err: err}
		}
	}
	if err := c.Check(); err != nil {
		return nil, &dray.Error{Op: "read commit", CID: head, Err: err}
	}
	return c, nil
}

func parseHead(data []byte) (*Commit, []cid.Cid, error) {
	if len(data) > MaxCommitBlock {
		return nil, nil, badf("%d bytes", len(data))
	}
	r := reader{rest: data}
	c := new(Commit)
	r.count(majorMap, 8, 8)
	r.key("id")
	c.ID = r.hex(20, false)
	r.key("dir")
	c.Dir = r.cid()
	r.key("dray")
	if v := r.head(majorUint); r.err == nil && v != commitVersion {
		return nil, nil, badf("version %d of a commit is not known here", v)
	}
	r.key("kind")
	c.Repo.Kind = Kind(min(r.head(majorUint), 255))
	r.key("name")
	c.Repo.Name = r.text(MaxName)
	r.key("time")
	c.Time = time.UnixMilli(int64(min(r.head(majorUint), 1<<53))).UTC()
	r.key("files")
	c.Files = r.files(nil)
	r.key("pages")
	n := r.count(majorArray, 0, mostPages)
	pages := make([]cid.Cid, 0, min(n, len(r.rest)/32))
	for range n {
		pages = append(pages, r.link())
		if r.err != nil {
			break
		}
	}
	return c, pages, r.end()
}

func parsePage(data []byte, files []File) ([]File, error) {
	if len(data) > MaxCommitBlock {
		return nil, badf("%d bytes", len(data))
	}
	r := reader{rest: data}
	files = r.files(files)
	return files, r.end()
}

// files reads an array of files.
func (r *reader) files(files []File) []File {
	n := r.count(majorArray, 0, MaxFiles-len(files))
	files = slices.Grow(files, min(n, len(r.rest)/24))
	for range n {
		r.count(majorArray, 5, 5)
		f := File{Path: r.text(MaxPath), Size: int64(min(r.head(majorUint), 1<<62)), Blob: r.hex(20, false), SHA256: r.hex(32, true), Root: r.cid()}
		if r.err != nil {
			break
		}
		files = append(files, f)
	}
	return files
}

// Pointer returns the text that stands in git for a file that is kept as LFS.
func Pointer(sha256 string, size int64) string {
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", sha256, size)
}

// PointerBlob returns the id that git gives a pointer.
func PointerBlob(sha256 string, size int64) string {
	p := Pointer(sha256, size)
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00%s", len(p), p)
	return hex.EncodeToString(h.Sum(nil))
}

// lfsBytes is the size from which a file is kept as LFS, whatever its name.
const lfsBytes = 10 << 20

// lfsSuffixes are the names that are kept as LFS whatever their size, as a new repository of the Hub's has them.
var lfsSuffixes = []string{
	".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".gguf", ".gz", ".h5", ".joblib", ".mlmodel", ".model", ".msgpack", ".npy",
	".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".rar", ".safetensors", ".tar", ".tflite", ".tgz",
	".wasm", ".xz", ".zip", ".zst",
}

// IsLFS reports whether a file of this name and size is kept as LFS: from 10 MiB on, or when its name ends like that of a format
// of tensors or an archive.
func IsLFS(path string, size int64) bool {
	return size >= lfsBytes || slices.ContainsFunc(lfsSuffixes, func(s string) bool { return strings.HasSuffix(path, s) })
}

// Identify gives the commit an id that follows from its repository and its files: two commits of a repository with the same
// files have the same id, whoever makes them.
func (c *Commit) Identify() {
	h := sha1.New()
	fmt.Fprintf(h, "dray commit 1\n%v\n%s\n", c.Repo, c.Trees()[""])
	c.ID = hex.EncodeToString(h.Sum(nil))
}

// Trees returns the id that git gives each directory, by its path; "" is the repository itself.
func (c *Commit) Trees() map[string]string {
	trees := make(map[string]string)
	tree("", c.Files, trees)
	return trees
}

// tree works out a directory's id from the files below it, which are in the order of their paths.
func tree(dir string, files []File, trees map[string]string) string {
	type entry struct{ key, mode, name, id string }
	var list []entry
	from := 0
	if dir != "" {
		from = len(dir) + 1
	}
	for i := 0; i < len(files); {
		name, _, below := strings.Cut(files[i].Path[from:], "/")
		if !below {
			list = append(list, entry{name, "100644", name, files[i].Blob})
			i++
			continue
		}
		sub := files[i].Path[:from+len(name)]
		end := i
		for end < len(files) && strings.HasPrefix(files[end].Path, sub+"/") {
			end++
		}
		list = append(list, entry{name + "/", "40000", name, tree(sub, files[i:end], trees)})
		i = end
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.key, b.key) }) // git sorts directories as if they ended in a slash
	var body []byte
	for _, e := range list {
		id, _ := hex.DecodeString(e.id) // of a blob that Check has seen, or our own
		body = append(append(append(body, e.mode+" "...), e.name+"\x00"...), id...)
	}
	h := sha1.New()
	fmt.Fprintf(h, "tree %d\x00", len(body))
	h.Write(body)
	id := hex.EncodeToString(h.Sum(nil))
	trees[dir] = id
	return id
}
