package hub

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"dray/names"
)

// treeEntry is a file or a directory as the Hub describes it.
type treeEntry struct {
	Type   string      `json:"type"`
	OID    string      `json:"oid"`
	Size   int64       `json:"size"`
	Path   string      `json:"path"`
	LFS    *lfsEntry   `json:"lfs,omitempty"`
	Commit *lastCommit `json:"lastCommit,omitempty"`
	// Security is always null: nobody here has looked for viruses.
	Security *struct{} `json:"securityFileStatus,omitempty"`
}

type lfsEntry struct {
	OID     string `json:"oid"`
	Size    int64  `json:"size"`
	Pointer int    `json:"pointerSize"`
}

type lastCommit struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Date  string `json:"date"`
}

// entryOf describes a file.
func entryOf(f *names.File) treeEntry {
	return treeEntry{Type: "file", OID: f.Blob, Size: f.Size, Path: f.Path, LFS: lfsOf(f)}
}

func lfsOf(f *names.File) *lfsEntry {
	if f.SHA256 == "" {
		return nil
	}
	return &lfsEntry{OID: f.SHA256, Size: f.Size, Pointer: len(names.Pointer(f.SHA256, f.Size))}
}

// lastCommitOf says of every file that it came with the commit: what earlier ones held is not looked at.
func lastCommitOf(c *names.Commit) *lastCommit {
	return &lastCommit{ID: c.ID, Title: commitTitle, Date: isoTime(c.Time)}
}

const commitTitle = "published"

// trees remembers what was worked out of the last commits: all files and directories, in the order of their paths.
type trees struct {
	mu   sync.Mutex // held while one is worked out, so that several requests work once
	done recent[[]treeEntry]
}

func (t *trees) of(c *names.Commit) []treeEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if list, ok := t.done.get(commitKey(c)); ok {
		return list
	}
	list := make([]treeEntry, 0, len(c.Files))
	for i := range c.Files {
		list = append(list, entryOf(&c.Files[i]))
	}
	for dir, id := range c.Trees() {
		if dir != "" {
			list = append(list, treeEntry{Type: "directory", OID: id, Path: dir})
		}
	}
	slices.SortFunc(list, func(a, b treeEntry) int { return cmp.Compare(a.Path, b.Path) })
	t.done.put(commitKey(c), list)
	return list
}

// find returns the entry at a path.
func findEntry(list []treeEntry, path string) (treeEntry, bool) {
	i, ok := slices.BinarySearchFunc(list, path, func(e treeEntry, p string) int { return cmp.Compare(e.Path, p) })
	if !ok {
		return treeEntry{}, false
	}
	return list[i], true
}

// tree lists a directory, or all that is below it, in pages.
func (s *Server) tree(w http.ResponseWriter, r *http.Request, c *names.Commit, p route) error {
	q := r.URL.Query()
	recursive, expand := truth(q.Get("recursive")), truth(q.Get("expand"))
	list := s.trees.of(c)
	prefix := ""
	if p.path != "" {
		e, ok := findEntry(list, p.path)
		if !ok || e.Type != "directory" {
			return refusef(http.StatusNotFound, codeEntry, "there is no directory %q in %v at %s", clip(p.path), c.Repo, p.revision)
		}
		prefix = p.path + "/"
	}
	most := s.cfg.PageSize
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		most = min(n, most)
	}
	at := func(path string) int {
		i, _ := slices.BinarySearchFunc(list, path, func(e treeEntry, p string) int { return cmp.Compare(e.Path, p) })
		return i
	}
	i := at(prefix)
	if cursor := q.Get("cursor"); cursor != "" {
		b, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || !strings.HasPrefix(string(b), prefix) {
			return refusef(http.StatusBadRequest, "", "the cursor is none that was given for this tree")
		}
		i = at(string(b) + "\x00") // the first one behind it
	}
	page := make([]treeEntry, 0, min(most, 64))
	for i < len(list) && strings.HasPrefix(list[i].Path, prefix) {
		e := list[i]
		if name, _, deep := strings.Cut(e.Path[len(prefix):], "/"); deep && !recursive {
			i = at(prefix + name + "0") // beyond what is in that directory: "0" follows "/"
			continue
		}
		if len(page) == most {
			next := *r.URL
			q.Set("cursor", base64.RawURLEncoding.EncodeToString([]byte(page[most-1].Path)))
			next.RawQuery = q.Encode()
			w.Header().Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", absolute(r, &next)))
			break
		}
		if expand {
			e.Commit = lastCommitOf(c)
		}
		page = append(page, e)
		i++
	}
	return s.send(w, r, page)
}

// absolute returns a URL of this server's as the client would write it: clients follow no others.
func absolute(r *http.Request, u *url.URL) string {
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	return scheme + "://" + r.Host + u.RequestURI()
}

// truth reads a switch: clients write it in several ways.
func truth(s string) bool {
	b, err := strconv.ParseBool(strings.ToLower(s))
	return err == nil && b
}

// mostPaths is how many paths may be asked about at once.
const mostPaths = 10_000

// pathsInfo describes the paths that are asked for and there.
func (s *Server) pathsInfo(w http.ResponseWriter, r *http.Request, c *names.Commit) error {
	paths, expand, err := readPaths(r)
	if err != nil {
		return err
	}
	if len(paths) > mostPaths {
		return refusef(http.StatusRequestEntityTooLarge, "", "%d paths are more than %d", len(paths), mostPaths)
	}
	list := s.trees.of(c)
	found := make([]treeEntry, 0, len(paths))
	for _, p := range paths {
		e, ok := findEntry(list, strings.Trim(p, "/"))
		if !ok {
			continue
		}
		if expand {
			e.Commit = lastCommitOf(c)
		}
		found = append(found, e)
	}
	return s.send(w, r, found)
}

// readPaths reads the body, which is JSON, or a form as some clients send it.
func readPaths(r *http.Request) (paths []string, expand bool, err error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == "application/x-www-form-urlencoded" {
		if err := r.ParseForm(); err != nil {
			return nil, false, bodyError(err)
		}
		return r.PostForm["paths"], truth(r.PostForm.Get("expand")), nil
	}
	var q struct {
		Paths  any `json:"paths"`
		Expand any `json:"expand"`
	}
	d := json.NewDecoder(r.Body)
	if err := d.Decode(&q); err != nil && err != io.EOF {
		return nil, false, bodyError(err)
	}
	switch p := q.Paths.(type) {
	case string:
		paths = []string{p}
	case []any:
		for _, x := range p {
			s, ok := x.(string)
			if !ok {
				return nil, false, refusef(http.StatusBadRequest, "", "paths are not texts")
			}
			paths = append(paths, s)
		}
	default:
		return nil, false, refusef(http.StatusBadRequest, "", "the body has no paths; right is {\"paths\": [...]}")
	}
	return paths, truth(fmt.Sprint(q.Expand)), nil
}

func bodyError(err error) error {
	if _, big := err.(*http.MaxBytesError); big {
		return refusef(http.StatusRequestEntityTooLarge, "", "the body has more than %d bytes", maxBody)
	}
	return refusef(http.StatusBadRequest, "", "the body cannot be read: %v", err)
}
