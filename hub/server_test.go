package hub

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"dray"
	"dray/names"
)

// shelf is a Library of what lies in memory.
type shelf struct {
	commits map[string]*names.Commit // by repository@revision
	files   map[string][]byte        // by path
	opened  []string
	broken  error
	short   int // bytes that are missing at the end of every file
}

func (s *shelf) Commit(_ context.Context, repo names.Repo, revision string) (*names.Commit, error) {
	if s.broken != nil {
		return nil, s.broken
	}
	if c := s.commits[repo.String()+"@"+revision]; c != nil {
		return c, nil
	}
	for k := range s.commits {
		if strings.HasPrefix(k, repo.String()+"@") {
			return nil, fmt.Errorf("%w: %s", ErrRevisionNotFound, revision)
		}
	}
	return nil, fmt.Errorf("%w: %v", ErrRepoNotFound, repo)
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

func (s *shelf) Open(_ context.Context, _ *names.Commit, f names.File) (Content, error) {
	s.opened = append(s.opened, f.Path)
	data := s.files[f.Path]
	return memory{bytes.NewReader(data[:len(data)-s.short])}, nil
}

func (s *shelf) List(context.Context) ([]Listing, error) {
	by := make(map[names.Repo]*Listing)
	for k, c := range s.commits {
		_, revision, _ := strings.Cut(k, "@")
		if by[c.Repo] == nil {
			by[c.Repo] = &Listing{Repo: c.Repo}
		}
		x := by[c.Repo]
		if names.IsCommit(revision) {
			x.Commits = append(x.Commits, Ref{Commit: c.ID, Time: c.Time})
		} else {
			x.Refs = append(x.Refs, Ref{revision, c.ID, c.Time})
		}
	}
	var all []Listing
	for _, x := range by {
		slices.SortFunc(x.Commits, func(a, b Ref) int { return b.Time.Compare(a.Time) })
		slices.SortFunc(x.Refs, func(a, b Ref) int { return strings.Compare(a.Name, b.Name) })
		all = append(all, *x)
	}
	slices.SortFunc(all, func(a, b Listing) int { return compareRepos(a.Repo, b.Repo) })
	return all, nil
}

func contentCID(t testing.TB, data []byte) cid.Cid {
	t.Helper()
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: 32}, data)
	if err != nil {
		t.Fatal(err)
	}
	return b.CID()
}

// commitOf makes a commit of files.
func commitOf(t testing.TB, repo string, files map[string][]byte, at time.Time) *names.Commit {
	t.Helper()
	r, err := names.ParseRepo(repo)
	if err != nil {
		t.Fatal(err)
	}
	c := &names.Commit{Repo: r, Time: at}
	for path, data := range files {
		f := names.File{Path: path, Size: int64(len(data)), Root: contentCID(t, data)}
		if names.IsLFS(path, f.Size) {
			sum := sha256.Sum256(data)
			f.SHA256 = hex.EncodeToString(sum[:])
			f.Blob = names.PointerBlob(f.SHA256, f.Size)
		} else {
			sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...))
			f.Blob = hex.EncodeToString(sum[:])
		}
		c.Files = append(c.Files, f)
	}
	slices.SortFunc(c.Files, func(a, b names.File) int { return strings.Compare(a.Path, b.Path) })
	c.Identify()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	return c
}

var sampleFiles = map[string][]byte{
	"README.md":         []byte("---\nlicense: mit\nlibrary_name: \"x y\"\ntags:\n- one\n - two\nlanguage: [en, de]\nmodel-index:\n- name: deep\n  results: 1\n---\n# hi\n"),
	"config.json":       []byte(`{"model_type":"llama","architectures":["L"]}`),
	"model.safetensors": bytes.Repeat([]byte("0123456789"), 50_000),
	"empty":             {},
	"sub/a.txt":         []byte("a"),
	"sub/deep/b.txt":    []byte("b"),
	"sub-x":             []byte("x"),
	"with space/ü.txt":  []byte("u"),
}

type hubTest struct {
	t       *testing.T
	shelf   *shelf
	commit  *names.Commit
	address string
}

// newHub serves a model, a dataset and a model without an owner.
func newHub(t *testing.T, cfg Config) *hubTest {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	c := commitOf(t, "org/name", sampleFiles, at)
	old := commitOf(t, "org/name", map[string][]byte{"README.md": []byte("old")}, at.Add(-time.Hour))
	tensors := []byte("\x70\x00\x00\x00\x00\x00\x00\x00" + fmt.Sprintf("%-112s",
		`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"U8","shape":[2,3],"data_offsets":[12,18]}}`) + strings.Repeat("x", 18))
	files := maps.Clone(sampleFiles)
	files["a-1.safetensors"], files["a-2.safetensors"] = tensors, tensors
	s := &shelf{files: files, commits: map[string]*names.Commit{
		"org/name@main": c, "org/name@refs/pr/1": c, "org/name@" + c.ID: c, "org/name@v0": old, "org/name@" + old.ID: old,
		"org/tensors@main":  commitOf(t, "org/tensors", map[string][]byte{"a-1.safetensors": tensors, "a-2.safetensors": tensors, "sub/c.safetensors": tensors}, at),
		"gpt2@main":         commitOf(t, "gpt2", map[string][]byte{"empty": {}}, at),
		"datasets/org/d@v1": commitOf(t, "datasets/org/d", map[string][]byte{"empty": {}}, at),
	}}
	cfg.Library = s
	srv := httptest.NewServer(NewServer(cfg))
	t.Cleanup(srv.Close)
	return &hubTest{t: t, shelf: s, commit: c, address: srv.Listener.Addr().String()}
}

// send sends a request just as it is written, and returns the answer with its body.
func (h *hubTest) send(method, path, body string, headers ...string) (*http.Response, string) {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: hub.example\r\nConnection: close\r\nContent-Length: %d\r\n", method, path, len(body))
	for _, x := range headers {
		if x != "" {
			fmt.Fprintf(conn, "%s\r\n", x)
		}
	}
	fmt.Fprintf(conn, "\r\n%s", body)
	all, err := io.ReadAll(conn)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(all)), &http.Request{Method: method})
	if err != nil {
		h.t.Fatalf("%s %s: %v: %q", method, path, err, all[:min(len(all), 300)])
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		text = append(text, "\n"+err.Error()...)
	}
	return resp, string(text)
}

func (h *hubTest) json(path string, v any) *http.Response {
	h.t.Helper()
	resp, body := h.send("GET", path, "")
	if err := json.Unmarshal([]byte(body), v); err != nil || resp.StatusCode != 200 {
		h.t.Fatalf("GET %s: %s, %v: %s", path, resp.Status, err, body)
	}
	return resp
}

// What is not there is said in the Hub's way, and nothing leads out of a repository.
func TestNotFound(t *testing.T) {
	h := newHub(t, Config{})
	long := strings.Repeat("a", 3000)
	for _, x := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/api/models/org/missing", 404, codeRepo},
		{"GET", "/api/models/org/missing/revision/main", 404, codeRepo},
		{"GET", "/org/missing/resolve/main/README.md", 404, codeRepo},
		{"GET", "/api/datasets/org/name", 404, codeRepo},
		{"GET", "/datasets/org/name/resolve/main/README.md", 404, codeRepo},
		{"GET", "/api/models/org/name/revision/missing", 404, codeRevision},
		{"HEAD", "/org/name/resolve/missing/README.md", 404, codeRevision},
		{"GET", "/api/models/org/name/tree/" + strings.Repeat("0", 40), 404, codeRevision},
		{"HEAD", "/org/name/resolve/main/missing", 404, codeEntry},
		{"GET", "/org/name/raw/main/missing", 404, codeEntry},
		{"GET", "/org/name/resolve/main/sub", 404, codeEntry},
		{"GET", "/api/models/org/name/tree/main/missing", 404, codeEntry},
		{"GET", "/api/models/org/name/tree/main/README.md", 404, codeEntry},

		{"GET", "/org/name/resolve/main/../../../etc/passwd", 404, codeEntry},
		{"GET", "/org/name/resolve/main/%2e%2e%2f%2e%2e%2fetc/passwd", 404, codeEntry},
		{"GET", "/org/name/resolve/main/sub/..%2fREADME.md", 404, codeEntry},
		{"GET", "/org/name/resolve/main/sub/%2e%2e/README.md", 404, codeEntry},
		{"GET", "/org/name/resolve/main/sub%5c..%5cREADME.md", 404, codeEntry},
		{"GET", "/org/name/resolve/main/%2fetc%2fpasswd", 404, codeEntry},
		{"GET", "/org/name/resolve/main//etc/passwd", 404, codeEntry},
		{"GET", "/org/name/resolve/main/README.md%00.txt", 404, codeEntry},
		{"GET", "/org/name/resolve/main/./README.md", 404, codeEntry},
		{"GET", "/org/name/resolve/main/C:%5cx", 404, codeEntry},
		{"GET", "/org/name/resolve/main/" + long, 404, codeEntry},
		{"GET", "/org/name/resolve/main/%ff", 404, codeEntry},
		{"GET", "/org/name/raw/main/..%2f..%2fx", 404, codeEntry},
		{"GET", "/api/models/org/name/tree/main/..%2f..", 404, codeEntry},
		{"GET", "/org/name/resolve/..%2f..%2fmain/README.md", 404, codeRevision},
		{"GET", "/org/name/resolve/%00/README.md", 404, codeRevision},
		{"GET", "/org/name/resolve/" + long + "/README.md", 404, codeRevision},
		{"GET", "/api/models/org/name/revision/main%2f..%2fv0", 404, codeRevision},
		{"GET", "/api/models/org/name/revision/main/more", 404, codeRevision},
		{"GET", "/../../resolve/main/x", 404, codeRepo},
		{"GET", "/%2e%2e/%2e%2e/resolve/main/x", 404, codeRepo},
		{"GET", "/org%2fname/resolve/main/README.md", 404, codeRepo},
		{"GET", "/org/%00/resolve/main/x", 404, codeRepo},
		{"GET", "/api/models/..%2f..%2fetc", 404, codeRepo},
		{"GET", "/api/models/" + long, 404, codeRepo},
		{"GET", "/ipfs/x/resolve/main/x", 404, codeRepo},
		{"GET", "/org/name/resolve/main/%zz", 400, ""},
		{"GET", "/" + strings.Repeat("a", 9000), 414, ""},
		{"GET", "/nothing", 404, ""},
		{"GET", "/api", 404, ""},
		{"GET", "/api/nothing", 404, ""},
		{"GET", "/api/model/org/name", 404, ""},
		{"GET", "/org/name", 404, ""},
		{"GET", "/a/b/c/resolve/main/x", 404, ""},
		{"GET", "/api/whoami-v2", 401, ""},
		{"POST", "/api/models/org/name", 405, ""},
		{"DELETE", "/org/name/resolve/main/README.md", 405, ""},
		{"GET", "/api/models/org/name/paths-info/main", 405, ""},
	} {
		resp, body := h.send(x.method, x.path, "")
		if resp.StatusCode != x.status || resp.Header.Get("X-Error-Code") != x.code {
			t.Errorf("%s %.60s: %s, code %q, want %d, %q", x.method, x.path, resp.Status, resp.Header.Get("X-Error-Code"), x.status, x.code)
		}
		if x.path[1] != '.' && resp.StatusCode == 400 && x.method == "GET" && !strings.Contains(body, "encoded") && !strings.Contains(body, "Bad Request") {
			t.Errorf("%.60s: %s", x.path, body)
		}
		if x.status == 400 && resp.Header.Get("X-Error-Message") == "" {
			continue // the server itself refuses what is no request
		}
		message := resp.Header.Get("X-Error-Message")
		if message == "" || len(message) > 1000 || strings.ContainsFunc(message, func(c rune) bool { return c > '~' || c < ' ' }) {
			t.Errorf("%s %.60s: the message is %q", x.method, x.path, message)
		}
		var e struct{ Error string }
		if x.method != "HEAD" && (json.Unmarshal([]byte(body), &e) != nil || e.Error == "") {
			t.Errorf("%s %.60s: the body is %q", x.method, x.path, body)
		}
	}
	if len(h.shelf.opened) > 0 {
		t.Errorf("files were opened: %q", h.shelf.opened)
	}
}

func TestInfo(t *testing.T) {
	h := newHub(t, Config{})
	for _, path := range []string{
		"/api/models/org/name", "/api/models/org/name/revision/main", "/api/models/org/name/revision/HEAD",
		"/api/models/org/name/revision/refs%2Fpr%2F1", "/api/models/org/name/revision/refs/pr/1",
		"/api/models/org/name/revision/refs%2Fheads%2Fmain", "/api/models/org/name/revision/" + h.commit.ID,
	} {
		var about map[string]any
		resp := h.json(path, &about)
		if about["sha"] != h.commit.ID || about["id"] != "org/name" || about["lastModified"] != "2023-11-14T22:13:20.123Z" ||
			resp.Header.Get("X-Repo-Commit") != h.commit.ID || resp.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %v, %v", path, about, resp.Header)
		}
		if list := about["siblings"].([]any); len(list) != len(sampleFiles) || list[0].(map[string]any)["rfilename"] != "README.md" {
			t.Errorf("%s: siblings %v", path, list)
		}
	}
	var about struct {
		Tags    []string       `json:"tags"`
		Library string         `json:"library_name"`
		Card    map[string]any `json:"cardData"`
		Config  map[string]any `json:"config"`
	}
	h.json("/api/models/org/name", &about)
	if want := []string{"x y", "one", "two", "en", "de", "license:mit"}; !slices.Equal(about.Tags, want) || about.Library != "x y" {
		t.Errorf("tags %q, library %q", about.Tags, about.Library)
	}
	if about.Card["license"] != "mit" || about.Config["model_type"] != "llama" {
		t.Errorf("card %v, config %v", about.Card, about.Config)
	}
	var few map[string]any
	h.json("/api/models/org/name/revision/HEAD?expand=sha&expand=downloads", &few)
	if len(few) != 4 || few["sha"] != h.commit.ID || few["downloads"] != 0.0 {
		t.Errorf("expanded: %v", few)
	}
	var counted struct {
		Safetensors struct {
			Parameters map[string]int64
			Total      int64
		}
	}
	if h.json("/api/models/org/name?expand=safetensors", &counted); counted.Safetensors.Total != 0 {
		t.Errorf("a file that is no safetensors file has %+v", counted)
	}
	h.json("/api/models/org/tensors?expand=safetensors", &counted)
	if x := counted.Safetensors; x.Total != 18 || x.Parameters["F32"] != 6 || x.Parameters["U8"] != 12 {
		t.Errorf("parameters: %+v", counted)
	}
	var blobs struct {
		Siblings []struct {
			Name string `json:"rfilename"`
			Size int64  `json:"size"`
			Blob string `json:"blobId"`
			LFS  struct {
				SHA256 string `json:"sha256"`
			} `json:"lfs"`
		} `json:"siblings"`
	}
	h.json("/api/models/org/name?blobs=True", &blobs)
	for _, x := range blobs.Siblings {
		f, _ := h.commit.Find(x.Name)
		if x.Size != f.Size || x.Blob != f.Blob || x.LFS.SHA256 != f.SHA256 {
			t.Errorf("%s: %+v", x.Name, x)
		}
	}
	var other map[string]any
	h.json("/api/models/gpt2", &other)
	if _, ok := other["author"]; ok || other["id"] != "gpt2" {
		t.Errorf("without an owner: %v", other)
	}
	h.json("/api/datasets/org/d/revision/v1", &other)
	var refs struct{ Branches []refName }
	h.json("/api/models/org/name/refs", &refs)
	if len(refs.Branches) != 3 || refs.Branches[0] != (refName{"main", "refs/heads/main", h.commit.ID}) {
		t.Errorf("refs %v", refs)
	}
	var commits []struct{ ID, Date string }
	h.json("/api/models/org/name/commits/main", &commits)
	if len(commits) != 2 || commits[0].ID != h.commit.ID {
		t.Errorf("commits %v", commits)
	}
	var list []struct{ ID string }
	resp := h.json("/api/models?limit=1", &list)
	if len(list) != 1 || list[0].ID != "gpt2" {
		t.Errorf("listed %v", list)
	}
	h.json(next(t, resp), &list)
	if len(list) != 1 || list[0].ID != "org/name" || resp.Header.Get("Link") == "" {
		t.Errorf("listed next %v", list)
	}
	for query, want := range map[string]int{"search=NAM": 1, "author=org": 2, "author=or": 0, "search=zzz": 0} {
		if h.json("/api/models?"+query, &list); len(list) != want {
			t.Errorf("%s: %v", query, list)
		}
	}
}

// next returns the path of the page that a Link header names.
func next(t *testing.T, resp *http.Response) string {
	t.Helper()
	link, ok := strings.CutSuffix(resp.Header.Get("Link"), `>; rel="next"`)
	path, whole := strings.CutPrefix(link, "<http://hub.example")
	if !ok || !whole {
		t.Fatalf("the link is %q", resp.Header.Get("Link"))
	}
	return path
}

func TestTree(t *testing.T) {
	h := newHub(t, Config{PageSize: 3})
	all := []string{
		"README.md", "config.json", "empty", "model.safetensors", "sub", "sub-x", "sub/a.txt", "sub/deep", "sub/deep/b.txt", "with space", "with space/ü.txt",
	}
	for _, x := range []struct {
		path string
		want []string
	}{
		{"/api/models/org/name/tree/main?recursive=true&expand=false", all},
		{"/api/models/org/name/tree/" + h.commit.ID + "?recursive=True", all},
		{"/api/models/org/name/tree/refs/pr/1?recursive=1&limit=2", all},
		{"/api/models/org/name/tree/main", []string{"README.md", "config.json", "empty", "model.safetensors", "sub", "sub-x", "with space"}},
		{"/api/models/org/name/tree/main/sub", []string{"sub/a.txt", "sub/deep"}},
		{"/api/models/org/name/tree/refs%2Fpr%2F1/sub?recursive=true", []string{"sub/a.txt", "sub/deep", "sub/deep/b.txt"}},
		{"/api/models/org/name/tree/main/with%20space", []string{"with space/ü.txt"}},
		{"/api/datasets/org/d/tree/v1", []string{"empty"}},
	} {
		var got []string
		for path := x.path; path != ""; {
			var page []treeEntry
			resp := h.json(path, &page)
			for _, e := range page {
				got = append(got, e.Path)
				f, ok := h.commit.Find(e.Path)
				if ok != (e.Type == "file") && e.Path != "empty" || ok && (e.OID != f.Blob || e.Size != f.Size) || len(e.OID) != 40 {
					t.Errorf("%s: %+v", path, e)
				}
				if (e.LFS != nil) != (e.Path == "model.safetensors") || e.LFS != nil && (e.LFS.OID != f.SHA256 || e.LFS.Pointer != len(names.Pointer(f.SHA256, f.Size))) {
					t.Errorf("%s: lfs %+v", path, e.LFS)
				}
			}
			if path = ""; resp.Header.Get("Link") != "" {
				path = next(t, resp)
			}
			if len(page) > 3 {
				t.Errorf("a page has %d entries", len(page))
			}
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s: %q, want %q", x.path, got, x.want)
		}
	}
	var page []treeEntry
	h.json("/api/models/org/name/tree/main?expand=true", &page)
	if page[0].Commit == nil || page[0].Commit.ID != h.commit.ID {
		t.Errorf("expanded: %+v", page[0])
	}
	for _, cursor := range []string{"%21", "Li4", strings.Repeat("a", 5000)} {
		if resp, body := h.send("GET", "/api/models/org/name/tree/main/sub?cursor="+cursor, ""); resp.StatusCode != 400 {
			t.Errorf("the cursor %.20q: %s %s", cursor, resp.Status, body)
		}
	}
}

func TestPathsInfo(t *testing.T) {
	h := newHub(t, Config{})
	const form = "Content-Type: application/x-www-form-urlencoded"
	for _, x := range []struct {
		kind, body string
		status     int
		want       []string
	}{
		{"Content-Type: application/json", `{"paths":["README.md","missing","sub","../x"],"expand":true}`, 200, []string{"README.md", "sub"}},
		{"Content-Type: application/json", `{"paths":["sub/a.txt"]}`, 200, []string{"sub/a.txt"}},
		{"Content-Type: application/json", `{"paths":"model.safetensors","expand":"True"}`, 200, []string{"model.safetensors"}},
		{"Content-Type: application/json", `{"paths":[]}`, 200, nil},
		{form, "paths=README.md&paths=sub&expand=True", 200, []string{"README.md", "sub"}},
		{form, "paths=with+space%2F%C3%BC.txt&expand=False", 200, []string{"with space/ü.txt"}},
		{"X-No: type", `{"paths":[1]}`, 400, nil},
		{"X-No: type", `{`, 400, nil},
		{"X-No: type", ``, 400, nil},
		{"X-No: type", `{"paths":["` + strings.Repeat("a", 2<<20) + `"]}`, 413, nil},
		{"X-No: type", `{"paths":[` + strings.Repeat(`"a",`, mostPaths) + `"a"]}`, 413, nil},
	} {
		resp, body := h.send("POST", "/api/models/org/name/paths-info/main", x.body, x.kind)
		var got []treeEntry
		if x.status == 200 && json.Unmarshal([]byte(body), &got) != nil || resp.StatusCode != x.status {
			t.Errorf("%.60s: %s %.200s", x.body, resp.Status, body)
			continue
		}
		var paths []string
		for _, e := range got {
			paths = append(paths, e.Path)
			if expand := strings.Contains(strings.ToLower(x.body), "true"); expand != (e.Commit != nil) {
				t.Errorf("%.60s: %+v", x.body, e)
			}
		}
		if !slices.Equal(paths, x.want) {
			t.Errorf("%.60s: %q", x.body, paths)
		}
	}
}

func TestResolve(t *testing.T) {
	h := newHub(t, Config{})
	f, _ := h.commit.Find("model.safetensors")
	readme, _ := h.commit.Find("README.md")
	weights, text := string(sampleFiles["model.safetensors"]), string(sampleFiles["README.md"])
	big := `"` + f.SHA256 + `"`
	n := len(weights)
	for _, x := range []struct {
		method, path, header string
		status               int
		body, rng            string
	}{
		{"GET", "/org/name/resolve/main/model.safetensors", "", 200, weights, ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Accept-Encoding: gzip", 200, weights, ""},
		{"GET", "/org/name/resolve/" + h.commit.ID + "/model.safetensors", "", 200, weights, ""},
		{"GET", "/org/name/resolve/refs%2Fpr%2F1/model.safetensors", "", 200, weights, ""},
		{"HEAD", "/org/name/resolve/main/model.safetensors", "", 200, "", ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=0-0", 206, "0", fmt.Sprintf("bytes 0-0/%d", n)},
		{"HEAD", "/org/name/resolve/main/model.safetensors", "Range: bytes=5-9", 206, "", fmt.Sprintf("bytes 5-9/%d", n)},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=3-12", 206, weights[3:13], fmt.Sprintf("bytes 3-12/%d", n)},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=499990-", 206, weights[499990:], fmt.Sprintf("bytes 499990-499999/%d", n)},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=-4", 206, "6789", fmt.Sprintf("bytes 499996-499999/%d", n)},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=0-99999999", 206, weights, fmt.Sprintf("bytes 0-499999/%d", n)},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=-99999999", 206, weights, fmt.Sprintf("bytes 0-499999/%d", n)},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=0-99999999999999999999999", 206, weights, fmt.Sprintf("bytes 0-499999/%d", n)},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=500000-", 416, "", ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=99999999999999999999999-", 416, "", ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=-0", 416, "", ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=0-1,5-6", 200, weights, ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=9-3", 200, weights, ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=a-b", 200, weights, ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=--1", 200, weights, ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: pages=1-2", 200, weights, ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "If-None-Match: " + big, 304, "", ""},
		{"GET", "/org/name/resolve/main/model.safetensors", `If-None-Match: "x", W/` + big, 304, "", ""},
		{"GET", "/org/name/resolve/main/model.safetensors", `If-None-Match: "x"`, 200, weights, ""},
		{"GET", "/org/name/resolve/main/model.safetensors", `If-Match: "x"`, 412, "", ""},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=0-0\r\nIf-Range: " + big, 206, "0", fmt.Sprintf("bytes 0-0/%d", n)},
		{"GET", "/org/name/resolve/main/model.safetensors", "Range: bytes=0-0\r\nIf-Range: \"old\"", 200, weights, ""},
		{"GET", "/org/name/resolve/main/README.md", "", 200, text, ""},
		{"GET", "/org/name/raw/main/README.md", "", 200, text, ""},
		{"GET", "/org/name/raw/main/model.safetensors", "", 200, names.Pointer(f.SHA256, f.Size), ""},
		{"HEAD", "/org/name/raw/main/model.safetensors", "", 200, "", ""},
		{"GET", "/org/name/resolve/main/empty", "", 200, "", ""},
		{"GET", "/org/name/resolve/main/empty", "Range: bytes=0-0", 416, "", ""},
		{"GET", "/org/name/resolve/main/empty", "Range: bytes=0-0\r\nAccept: application/vnd.xet-fileinfo+json, */*", 206, "", "bytes */0"},
		{"GET", "/org/name/resolve/main/with%20space/%C3%BC.txt", "", 200, "u", ""},
		{"GET", "/org/name/resolve/main/sub%2Fdeep%2Fb.txt", "", 200, "b", ""},
		{"GET", "/gpt2/resolve/main/empty", "", 200, "", ""},
		{"GET", "/datasets/org/d/resolve/v1/empty", "", 200, "", ""},
	} {
		resp, body := h.send(x.method, x.path, "", strings.Split(x.header+"\r\nX-End: 1", "\r\n")...)
		name := fmt.Sprintf("%s %s %s", x.method, x.path, x.header)
		if resp.StatusCode != x.status || x.status < 400 && body != x.body || resp.Header.Get("Content-Range") != x.rng {
			t.Errorf("%s: %s, %d bytes, range %q", name, resp.Status, len(body), resp.Header.Get("Content-Range"))
		}
		if resp.StatusCode >= 400 {
			if c := resp.Header.Get("Cache-Control"); c != "no-store" {
				t.Errorf("%s: the refusal may be kept: %q", name, c)
			}
			continue
		}
		if resp.Header.Get("X-Repo-Commit") == "" || resp.Header.Get("Accept-Ranges") != "bytes" || resp.Header.Get("ETag") == "" ||
			resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Location") != "" || resp.TransferEncoding != nil {
			t.Errorf("%s: %v", name, resp.Header)
		}
		if x.method == "GET" && x.status == 200 && resp.ContentLength != int64(len(x.body)) {
			t.Errorf("%s: a length of %d", name, resp.ContentLength)
		}
		linked := strings.Contains(x.path, "/resolve/") && strings.Contains(x.path, "model.safetensors")
		if got := resp.Header.Get("X-Linked-Etag"); (got == big) != linked || (resp.Header.Get("X-Linked-Size") == fmt.Sprint(n)) != linked {
			t.Errorf("%s: linked %q", name, got)
		}
		if strings.HasSuffix(x.path, "README.md") && resp.Header.Get("ETag") != `"`+readme.Blob+`"` || linked && resp.Header.Get("ETag") != big {
			t.Errorf("%s: the ETag is %s", name, resp.Header.Get("ETag"))
		}
		if resp.Header.Get("X-Content-Type-Options") != "nosniff" || strings.Contains(resp.Header.Get("Content-Type"), "html") {
			t.Errorf("%s: %v", name, resp.Header)
		}
	}
	if resp, _ := h.send("HEAD", "/org/name/resolve/main/model.safetensors", ""); resp.ContentLength != int64(n) {
		t.Errorf("HEAD has a length of %d", resp.ContentLength)
	}
}

// What a client does not get whole it can tell from an answer that is whole.
func TestCutShort(t *testing.T) {
	h := newHub(t, Config{})
	h.shelf.short = 1
	_, body := h.send("GET", "/org/name/resolve/main/model.safetensors", "")
	if !strings.Contains(body, "unexpected EOF") {
		t.Errorf("%d bytes came, and no error", len(body))
	}
	h.shelf.short = 1
	resp, _ := h.send("GET", "/org/name/resolve/"+h.shelf.commits["org/name@main"].ID+"/sub/a.txt", "")
	if c := resp.Header.Get("Cache-Control"); resp.StatusCode != 502 || c != "no-store" {
		t.Errorf("a file of which nothing came: %s, to be kept: %q", resp.Status, c)
	}
}

func TestTrouble(t *testing.T) {
	h := newHub(t, Config{})
	for _, x := range []struct {
		err    error
		status int
		code   string
	}{
		{fmt.Errorf("%w: no", ErrGated), 403, codeGated},
		{fmt.Errorf("%w: no", ErrUpstream), 502, ""},
		{fmt.Errorf("%w: %w", ErrUpstream, context.DeadlineExceeded), 504, ""},
		{fmt.Errorf("broken\r\nX-Injected: 1"), 500, ""},
	} {
		h.shelf.broken = x.err
		resp, _ := h.send("GET", "/api/models/org/name", "")
		if resp.StatusCode != x.status || resp.Header.Get("X-Error-Code") != x.code || resp.Header.Get("X-Injected") != "" {
			t.Errorf("%v: %s %v", x.err, resp.Status, resp.Header)
		}
	}
	h = newHub(t, Config{Requests: -1})
	if resp, _ := h.send("GET", "/api/models/org/name", ""); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("with no room: %s %v", resp.Status, resp.Header)
	}
}

func TestFirst(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	one := &shelf{commits: map[string]*names.Commit{"org/a@main": commitOf(t, "org/a", map[string][]byte{"f": []byte("1")}, at)}}
	two := &shelf{commits: map[string]*names.Commit{
		"org/a@main": commitOf(t, "org/a", map[string][]byte{"f": []byte("2")}, at), "org/b@main": commitOf(t, "org/b", map[string][]byte{"f": []byte("2")}, at),
	}}
	one.files, two.files = map[string][]byte{"f": []byte("1")}, map[string][]byte{"f": []byte("2")}
	l := First(one, two)
	for name, want := range map[string]string{"org/a": "1", "org/b": "2"} {
		repo, _ := names.ParseRepo(name)
		c, err := l.Commit(t.Context(), repo, "main")
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Open(t.Context(), c, c.Files[0])
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := io.ReadAll(r); string(text) != want {
			t.Errorf("%s is %s", name, text)
		}
	}
	missing, _ := names.ParseRepo("org/c")
	if _, err := l.Commit(t.Context(), missing, "main"); !errors.Is(err, ErrRepoNotFound) {
		t.Errorf("missing: %v", err)
	}
	two.broken = ErrUpstream
	if _, err := l.Commit(t.Context(), missing, "main"); !errors.Is(err, ErrUpstream) {
		t.Errorf("missing, with an upstream that fails: %v", err)
	}
	two.broken = nil
	a, _ := names.ParseRepo("org/a")
	if _, err := l.Commit(t.Context(), a, "v9"); !errors.Is(err, ErrRevisionNotFound) {
		t.Errorf("a missing revision: %v", err)
	}
	list, err := l.(Lister).List(t.Context())
	if err != nil || len(list) != 2 || list[0].Repo != a {
		t.Errorf("listed %v, %v", list, err)
	}
}
