package names

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"dray"
)

// edKey signs as a host's key does, without the library that hosts have it from.
type edKey ed25519.PrivateKey

func newKey(seed byte) edKey { return edKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))) }

// idHead stands before the key in the id of an Ed25519 key: an identity multihash of a protobuf.
const idHead = "\x00\x24\x08\x01\x12\x20"

func (k edKey) id() dray.PeerID {
	return dray.PeerID(idHead + string(ed25519.PrivateKey(k).Public().(ed25519.PublicKey)))
}

func (k edKey) ID() (dray.PeerID, error) { return k.id(), nil }
func (k edKey) Sign(text []byte) ([]byte, error) {
	return ed25519.Sign(ed25519.PrivateKey(k), text), nil
}

func verify(key dray.PeerID, text, signature []byte) error {
	if pub, ok := strings.CutPrefix(string(key), idHead); ok && ed25519.Verify(ed25519.PublicKey(pub), text, signature) {
		return nil
	}
	return errors.New("the signature is wrong")
}

func rawCID(t testing.TB, data string) cid.Cid {
	t.Helper()
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: 32}, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return b.CID()
}

func TestRepoNames(t *testing.T) {
	for _, good := range []string{
		"org/name", "gpt2", "Org-1/My_Model.v2", "datasets/org/name", "spaces/org/name", "models-of/name", "a/b",
		strings.Repeat("a", 47) + "/" + strings.Repeat("b", 48),
	} {
		r, err := ParseRepo(good)
		if err != nil || r.String() != good {
			t.Errorf("%q is read as %v, %v", good, r, err)
		}
	}
	for _, bad := range []string{
		"", "/", "org/", "/name", "a/b/c", "org//name", "org/../name", "..", ".", "../..", "org/..", "org/.name", "org/name.", "-a/b", "a-/b",
		"org/na me", "org/na\x00me", `org\name`, "org/na%2fme", "org/nämé", "a--b/c", "a..b/c", "org/name.git", "api/models", "API/models",
		"datasets", "ipfs/x", "dash/x", "metrics/x", "debug/pprof", "resolve/x", "org/name\n", strings.Repeat("a", 97),
		"datasets/api/x", "datasets/../x",
	} {
		if r, err := ParseRepo(bad); !errors.Is(err, ErrBadName) {
			t.Errorf("%q is read as %v, %v", bad, r, err)
		}
	}
	if err := (Repo{Kind: 9, Name: "a/b"}).Check(); !errors.Is(err, ErrBadName) {
		t.Errorf("a kind that does not exist: %v", err)
	}
}

func TestPathsAndRevisions(t *testing.T) {
	for _, good := range []string{"a", "a/b", ".gitattributes", "a b.txt", "ü/ñ", "a..b", "...", "1:2"} {
		if err := CheckPath(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b", `a\b`, `..\a`, "a\x00b", "a\nb", "\xff", "C:/x", "a/c:x",
		"a\x7f", strings.Repeat("a", MaxPath+1),
	} {
		if err := CheckPath(bad); !errors.Is(err, ErrBadName) {
			t.Errorf("the path %q is let pass: %v", bad, err)
		}
	}
	for _, good := range []string{"main", "v1.0", "refs/pr/1", "feature/x", strings.Repeat("a", 40)} {
		if err := CheckRevision(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "..", "a..b", "../main", "a/", "/a", "a//b", ".a", "a/.b", "a.", "a.lock", "a b", "a\x00", "a~1", "a^", "a:b", "a?", "a*", "a[", `a\b`, "@{",
		strings.Repeat("a", MaxRevision+1), "\xff",
	} {
		if err := CheckRevision(bad); !errors.Is(err, ErrBadName) {
			t.Errorf("the revision %q is let pass: %v", bad, err)
		}
	}
}

func sample(t testing.TB, files int) *Commit {
	c := &Commit{Repo: Repo{Dataset, "org/name"}, Time: time.UnixMilli(1_700_000_000_123).UTC(), Dir: rawCID(t, "dir")}
	for i := range files {
		f := File{Path: fmt.Sprintf("data/part-%07d.bin", i), Size: int64(i) << 20, Root: rawCID(t, "root"), SHA256: fmt.Sprintf("%064x", i)}
		f.Blob = PointerBlob(f.SHA256, f.Size)
		if i%3 == 1 {
			f.Root, f.SHA256 = cid.Undef, ""
		}
		c.Files = append(c.Files, f)
	}
	c.Identify()
	return c
}

// blockMap is a Getter of what lies in it.
type blockMap map[cid.Cid]dray.Block

func (m blockMap) Get(_ context.Context, c cid.Cid) (dray.Block, error) {
	b, ok := m[c]
	if !ok {
		return b, &dray.Error{Op: "get", CID: c, Err: dray.ErrNotFound}
	}
	return b, nil
}

func TestCommitBlocks(t *testing.T) {
	for _, n := range []int{0, 1, 23, 24, 5000, 100_000} {
		c := sample(t, n)
		blocks, err := c.Blocks()
		if err != nil {
			t.Fatal(err)
		}
		m := blockMap{}
		for _, b := range blocks {
			if b.Size() > MaxCommitBlock {
				t.Errorf("%d files: a block of %d bytes", n, b.Size())
			}
			m[b.CID()] = b
		}
		head := blocks[len(blocks)-1].CID()
		got, err := ReadCommit(context.Background(), m, head)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Files) == 0 {
			got.Files = nil
		}
		if !reflect.DeepEqual(got, c) {
			t.Errorf("%d files are not read as they were written", n)
		}
		if n == 100_000 && len(blocks) < 10 {
			t.Errorf("100,000 files are in %d blocks", len(blocks))
		}
		if n == 24 && head.String() != goldenCommit {
			t.Errorf("the commit is %v, and was %s", head, goldenCommit)
		}
		if len(blocks) > 1 {
			delete(m, blocks[0].CID())
			if _, err := ReadCommit(context.Background(), m, head); !errors.Is(err, dray.ErrNotFound) {
				t.Errorf("a page is missing: %v", err)
			}
		}
	}
}

func TestCommitRefused(t *testing.T) {
	for _, x := range []struct {
		why  string
		make func(*Commit)
	}{
		{"no id", func(c *Commit) { c.ID = "" }},
		{"an id that is too long", func(c *Commit) { c.ID += "0" }},
		{"capital digits", func(c *Commit) { c.ID = strings.Repeat("A", 40) }},
		{"a bad name", func(c *Commit) { c.Repo.Name = "../x" }},
		{"a path that leads out", func(c *Commit) { c.Files[0].Path = "../x" }},
		{"a path twice", func(c *Commit) { c.Files[1].Path = c.Files[0].Path }},
		{"paths out of order", func(c *Commit) { c.Files[0], c.Files[1] = c.Files[1], c.Files[0] }},
		{"a file that is a directory", func(c *Commit) { c.Files[0].Path = "data" }},
		{"less than nothing", func(c *Commit) { c.Files[0].Size = -1 }},
		{"no blob", func(c *Commit) { c.Files[0].Blob = "" }},
		{"a digest that is too short", func(c *Commit) { c.Files[0].SHA256 = "00" }},
		{"before 1970", func(c *Commit) { c.Time = time.Unix(-1, 0) }},
	} {
		c := sample(t, 3)
		x.make(c)
		if _, err := c.Blocks(); !errors.Is(err, ErrBadCommit) {
			t.Errorf("%s: %v", x.why, err)
		}
	}
}

// Whatever is read is what would be written: there is one form.
func FuzzCommit(f *testing.F) {
	for _, n := range []int{0, 1, 30} {
		blocks, err := sample(f, n).Blocks()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blocks[len(blocks)-1].Data())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, pages, err := parseHead(data)
		if err != nil || len(pages) > 0 || c.Check() != nil {
			return
		}
		blocks, err := c.Blocks()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if !bytes.Equal(blocks[len(blocks)-1].Data(), data) {
			t.Fatalf("%x is read as what is written as %x", data, blocks[len(blocks)-1].Data())
		}
	})
}

func TestCommitTruncated(t *testing.T) {
	blocks, err := sample(t, 5).Blocks()
	if err != nil {
		t.Fatal(err)
	}
	data := blocks[0].Data()
	for n := range data {
		if _, _, err := parseHead(data[:n]); !errors.Is(err, ErrBadCommit) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
	if _, _, err := parseHead(append(data[:len(data):len(data)], 0)); !errors.Is(err, ErrBadCommit) {
		t.Errorf("a byte too many: %v", err)
	}
}

// The ids are those that git gives; made with `git hash-object` and `git write-tree`.
func TestGitIDs(t *testing.T) {
	c := &Commit{Repo: Repo{Model, "org/name"}, Files: []File{
		{Path: "a-b", Blob: "c1b0730e0133447badcfd47fd144e254807b06e1"},
		{Path: "a.txt", Blob: "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"},
		{Path: "a/x", Blob: "c1b0730e0133447badcfd47fd144e254807b06e1"},
		{Path: "a/y/z", Blob: "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"},
	}}
	trees := c.Trees()
	for dir, want := range map[string]string{"": goldenTree, "a/y": goldenSubtree} {
		if trees[dir] != want {
			t.Errorf("the tree %q is %s, for git %s", dir, trees[dir], want)
		}
	}
	if len(trees) != 3 {
		t.Errorf("%d trees", len(trees))
	}
	const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := PointerBlob(digest, 0); got != goldenPointer {
		t.Errorf("the pointer is %s, for git %s", got, goldenPointer)
	}
}

func record(t testing.TB, k edKey, change func(*Record)) *Record {
	t.Helper()
	r := &Record{
		Repo: Repo{Model, "org/name"}, Revision: "main", Commit: strings.Repeat("ab", 20), Block: rawCID(t, "head"), Dir: rawCID(t, "dir"),
		Sequence: 7, Time: time.UnixMilli(1_700_000_000_000).UTC(),
	}
	if change != nil {
		change(r)
	}
	if err := r.Sign(k); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecord(t *testing.T) {
	r := record(t, newKey(1), nil)
	data := r.Encode()
	if got := hex.EncodeToString(data); got != goldenRecord {
		t.Errorf("the record is\n%s, and was\n%s", got, goldenRecord)
	}
	got, err := ParseRecord(data)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Fatalf("read as %+v, %v", got, err)
	}
	if err := got.Verify(verify); err != nil {
		t.Error(err)
	}
	for n := range data {
		if _, err := ParseRecord(data[:n]); !errors.Is(err, ErrBadRecord) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
	// No byte can be changed without it being noticed.
	for i := range data {
		x := bytes.Clone(data)
		x[i] ^= 0x41
		if r, err := ParseRecord(x); err == nil && r.Verify(verify) == nil {
			t.Errorf("byte %d was changed, and the signature still counts", i)
		}
	}
	for _, x := range []struct {
		why  string
		make func(*Record)
	}{
		{"a bad name", func(r *Record) { r.Repo.Name = "api/x" }},
		{"a revision that is a commit", func(r *Record) { r.Revision = r.Commit }},
		{"no block", func(r *Record) { r.Block = cid.Undef }},
		{"no commit", func(r *Record) { r.Commit = "" }},
	} {
		r := record(t, newKey(1), nil)
		x.make(r)
		if err := r.Sign(newKey(1)); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%s is signed: %v", x.why, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(record(f, newKey(1), nil).Encode())
	f.Add(record(f, newKey(2), func(r *Record) { r.Private, r.Dir, r.Until = true, cid.Undef, r.Time.Add(1) }).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecord(data)
		if err == nil && !bytes.Equal(r.Encode(), data) && r.Time.UnixMilli() < 1<<53 && r.Until.UnixMilli() < 1<<53 {
			t.Fatalf("%x is read as what is written as %x", data, r.Encode())
		}
	})
}

func TestQuestions(t *testing.T) {
	q := Question{Repo{Dataset, "org/name"}, "refs/pr/1"}
	got, err := ParseQuestion(q.Encode())
	if err != nil || got != q {
		t.Errorf("read as %+v, %v", got, err)
	}
	if n := len((&Question{Repo{Model, strings.Repeat("a", MaxName)}, strings.Repeat("r", MaxRevision)}).Encode()); n > MaxQuestion {
		t.Errorf("a question has %d bytes", n)
	}
	bad := Question{Repo{Model, "../x"}, "main"}
	if _, err := ParseQuestion(bad.Encode()); !errors.Is(err, ErrBadName) {
		t.Errorf("a bad name is asked for: %v", err)
	}
	q = Question{Repo{Model, "org/name"}, "main"}
	r := record(t, newKey(1), nil)
	list, err := ParseAnswer(&q, EncodeAnswer([]*Record{r}))
	if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], r) {
		t.Errorf("answered %v, %v", list, err)
	}
	byID := Question{q.Repo, r.Commit}
	if list, err := ParseAnswer(&byID, EncodeAnswer([]*Record{r})); err != nil || len(list) != 1 {
		t.Errorf("answered by id %v, %v", list, err)
	}
	other := Question{Repo{Model, "org/other"}, "main"}
	if _, err := ParseAnswer(&other, EncodeAnswer([]*Record{r})); !errors.Is(err, ErrBadRecord) {
		t.Errorf("an answer to another question: %v", err)
	}
	if _, err := ParseAnswer(&q, []byte{255}); !errors.Is(err, ErrBadRecord) {
		t.Errorf("an answer that is too long: %v", err)
	}
}

func TestBook(t *testing.T) {
	a, b, c := newKey(1), newKey(2), newKey(3)
	q := &Question{Repo{Model, "org/name"}, "main"}
	at := time.UnixMilli(1_700_000_000_000)
	commit := func(d string, seq uint64) func(*Record) {
		return func(r *Record) { r.Commit, r.Sequence = strings.Repeat(d, 40), seq }
	}
	var book Book
	one, two := record(t, a, commit("1", 1)), record(t, a, commit("2", 2))
	for _, r := range []*Record{two, one, record(t, b, commit("3", 99)), record(t, c, commit("4", 100))} {
		if !book.Put(r) {
			t.Errorf("commit %s is no news", r.Commit)
		}
		if book.Put(r) {
			t.Errorf("commit %s is news twice", r.Commit)
		}
	}
	trust := &Trust{Rules: []Rule{{Key: a.id()}, {Key: b.id(), Repos: "org/*"}}}
	best, others := book.Best(at, q, trust)
	if best != two || len(others) != 1 || others[0] != c.id() {
		t.Errorf("the best is %+v, besides %v", best, others)
	}
	if best, _ := book.Best(at, q, &Trust{Rules: []Rule{{Key: b.id(), Repos: "other/*"}}}); best != nil {
		t.Errorf("a key that is trusted with others is believed: %+v", best)
	}
	if best, _ := book.Best(at, &Question{q.Repo, one.Commit}, trust); best != one {
		t.Errorf("the old commit is %+v", best)
	}
	if n := book.Next(a.id(), q.Repo, "main"); n != 3 {
		t.Errorf("the next is %d", n)
	}
	old := record(t, b, func(r *Record) { commit("5", 100)(r); r.Until = at })
	book.Put(old)
	trust = &Trust{Rules: []Rule{{Key: b.id()}}}
	if best, _ := book.Best(at, q, trust); best == nil || best.Commit[0] != '3' {
		t.Errorf("what is over counts: %+v", best)
	}
	if best, _ := book.Best(at.Add(-1), q, trust); best != old {
		t.Errorf("what is not over does not count: %+v", best)
	}
	if n := book.Delete(func(r *Record) bool { return r.Key == a.id() }); n != 2 || book.Len() != 3 {
		t.Errorf("%d are gone, %d left", n, book.Len())
	}
	small := Book{Most: 2}
	for i := range 5 {
		small.Put(record(t, a, func(r *Record) {
			r.Commit, r.Time, r.Sequence = fmt.Sprintf("%040x", i), r.Time.Add(time.Duration(i)*time.Hour), uint64(i+1)
		}))
	}
	if list := small.Records(); len(list) != 2 || list[1].Sequence != 5 || list[0].Sequence != 4 {
		t.Errorf("a small book holds %d records", len(list))
	}
}

func TestTrustFile(t *testing.T) {
	a, b := newKey(1).id(), newKey(2).id()
	text := []byte("# those whom we know\n" + a.String() + " org/* # Ada\n")
	text, err := AddRule(text, Rule{Key: b})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := ParseTrust(text)
	if err != nil || len(trust.Rules) != 2 || trust.Rules[0] != (Rule{a, "org/*"}) || trust.Rules[1] != (Rule{b, ""}) {
		t.Errorf("read %v, %v", trust, err)
	}
	for repo, want := range map[string]bool{"org/x": true, "org2/x": false, "gpt2": false, "datasets/org/x": false} {
		r, err := ParseRepo(repo)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := trust.Rank(a, r); ok != want {
			t.Errorf("trusted with %s: %v", repo, ok)
		}
	}
	text, n, err := RemoveKey(text, a, "")
	if err != nil || n != 1 || !strings.HasPrefix(string(text), "# those") || strings.Contains(string(text), "Ada") {
		t.Errorf("%d removed, %v: %s", n, err, text)
	}
	for _, bad := range []string{"x", a.String() + " [", a.String() + " a b"} {
		if _, err := ParseTrust([]byte("\n" + bad)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
