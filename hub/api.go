package hub

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"dray/names"
)

// sibling is a file as the Hub lists it in what it says of a repository.
type sibling struct {
	Name string `json:"rfilename"`
	Size *int64 `json:"size,omitempty"`
	Blob string `json:"blobId,omitempty"`
	LFS  *struct {
		SHA256  string `json:"sha256"`
		Size    int64  `json:"size"`
		Pointer int    `json:"pointerSize"`
	} `json:"lfs,omitempty"`
}

// info says what a repository is at a commit. With ?expand=… it says what is asked for, as the Hub does, and else all.
func (s *Server) info(w http.ResponseWriter, r *http.Request, c *names.Commit) error {
	q := r.URL.Query()
	want := expanded(q["expand"], q["expand[]"])
	about := s.about(c)
	if want("siblings") {
		about["siblings"] = siblingsOf(c, truth(q.Get("blobs")))
	}
	if want("usedStorage") {
		var sum int64
		for i := range c.Files {
			sum += c.Files[i].Size
		}
		about["usedStorage"] = sum
	}
	if want("pipeline_tag") || want("library_name") || want("tags") || want("cardData") || want("config") {
		s.describe(r.Context(), c, about)
	}
	if slices.Contains(slices.Concat(q["expand"], q["expand[]"]), "safetensors") { // not without being asked: it reads headers
		if found := s.parameters(r.Context(), c); found != nil {
			about["safetensors"] = found
		}
	}
	for k := range about {
		if !want(k) {
			delete(about, k)
		}
	}
	return s.send(w, r, about)
}

// expanded returns a function that says what is asked for.
func expanded(lists ...[]string) func(string) bool {
	all := slices.Concat(lists...)
	return func(k string) bool {
		return len(all) == 0 || k == "id" || k == "_id" || slices.Contains(all, k)
	}
}

// about is what is known of a repository without looking into its files. Nobody here counts downloads or likes; clients
// expect the numbers, so they are zero.
func (s *Server) about(c *names.Commit) map[string]any {
	m := map[string]any{
		"_id": repoID(c.Repo), "id": c.Repo.Name, "sha": c.ID, "lastModified": isoTime(c.Time),
		"private": false, "gated": false, "disabled": false, "downloads": 0, "likes": 0, "tags": []string{},
	}
	if c.Repo.Kind == names.Model {
		m["modelId"] = c.Repo.Name
	}
	if owner := c.Repo.Owner(); owner != "" {
		m["author"] = owner
	}
	return m
}

// repoID makes an id as the Hub's databases have them, which clients take for one.
func repoID(r names.Repo) string {
	h := sha256.Sum256([]byte(r.Kind.String() + " " + r.Name))
	return hex.EncodeToString(h[:12])
}

func siblingsOf(c *names.Commit, blobs bool) []sibling {
	list := make([]sibling, 0, len(c.Files))
	for i := range c.Files {
		f := &c.Files[i]
		x := sibling{Name: f.Path}
		if blobs {
			x.Size, x.Blob = &f.Size, f.Blob
			if f.SHA256 != "" {
				x.LFS = &struct {
					SHA256  string `json:"sha256"`
					Size    int64  `json:"size"`
					Pointer int    `json:"pointerSize"`
				}{f.SHA256, f.Size, len(names.Pointer(f.SHA256, f.Size))}
			}
		}
		list = append(list, x)
	}
	return list
}

// refName is a branch or tag as the Hub lists it.
type refName struct {
	Name   string `json:"name"`
	Ref    string `json:"ref"`
	Commit string `json:"targetCommit"`
}

// refs lists the revisions of a repository that are known here. All are listed as branches: nothing tells them from tags.
func (s *Server) refs(w http.ResponseWriter, r *http.Request, repo names.Repo) error {
	found, err := s.listing(r, repo)
	if err != nil {
		return err
	}
	answer := struct {
		Branches []refName `json:"branches"`
		Converts []refName `json:"converts"`
		Tags     []refName `json:"tags"`
	}{[]refName{}, []refName{}, []refName{}}
	for _, x := range found.Refs {
		answer.Branches = append(answer.Branches, refName{x.Name, "refs/heads/" + x.Name, x.Commit})
	}
	return s.send(w, r, answer)
}

// listing returns what is known of a repository; at least its main branch, or an error.
func (s *Server) listing(r *http.Request, repo names.Repo) (Listing, error) {
	c, err := s.cfg.Library.Commit(r.Context(), repo, mainRevision)
	if l, ok := s.cfg.Library.(Lister); ok {
		list, lerr := l.List(r.Context())
		if lerr != nil {
			return Listing{}, lerr
		}
		for _, x := range list {
			if x.Repo == repo && len(x.Refs) > 0 {
				return x, nil
			}
		}
	}
	if err != nil {
		return Listing{}, err
	}
	one := Ref{Name: mainRevision, Commit: c.ID, Time: c.Time}
	return Listing{Repo: repo, Refs: []Ref{one}, Commits: []Ref{{Commit: c.ID, Time: c.Time}}}, nil
}

// commits lists what is known of a repository's history, from a commit back.
func (s *Server) commits(w http.ResponseWriter, r *http.Request, c *names.Commit) error {
	type author struct {
		User string `json:"user"`
	}
	type entry struct {
		ID      string   `json:"id"`
		Title   string   `json:"title"`
		Message string   `json:"message"`
		Authors []author `json:"authors"`
		Date    string   `json:"date"`
	}
	found, err := s.listing(r, c.Repo)
	if err != nil {
		return err
	}
	list := []entry{{c.ID, commitTitle, "", []author{}, isoTime(c.Time)}}
	for _, x := range found.Commits {
		if x.Commit != c.ID && x.Time.Before(c.Time) {
			list = append(list, entry{x.Commit, commitTitle, "", []author{}, isoTime(x.Time)})
		}
	}
	w.Header().Set("X-Total-Count", strconv.Itoa(len(list)))
	return s.send(w, r, list)
}

// mostListed is how many repositories are listed on a page.
const mostListed = 500

// list lists the repositories that are known here, among those asked for.
func (s *Server) list(w http.ResponseWriter, r *http.Request, kind names.Kind) error {
	var all []Listing
	if l, ok := s.cfg.Library.(Lister); ok {
		var err error
		if all, err = l.List(r.Context()); err != nil {
			return err
		}
	}
	q := r.URL.Query()
	search, owner := strings.ToLower(q.Get("search")), q.Get("author")
	all = slices.DeleteFunc(slices.Clone(all), func(x Listing) bool {
		return x.Repo.Kind != kind || !strings.Contains(strings.ToLower(x.Repo.Name), search) || owner != "" && x.Repo.Owner() != owner ||
			len(x.Refs) == 0
	})
	most := mostListed
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		most = min(n, most)
	}
	after := ""
	if cursor := q.Get("cursor"); cursor != "" {
		b, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil {
			return refusef(http.StatusBadRequest, "", "the cursor is none that was given for this list")
		}
		after = string(b)
	}
	want := expanded(q["expand"], q["expand[]"])
	page := []map[string]any{}
	for i, x := range all {
		if x.Repo.Name <= after {
			continue
		}
		ref := x.Refs[0]
		if i := slices.IndexFunc(x.Refs, func(r Ref) bool { return r.Name == mainRevision }); i >= 0 {
			ref = x.Refs[i]
		}
		about := s.about(&names.Commit{Repo: x.Repo, ID: ref.Commit, Time: ref.Time})
		for k := range about {
			if !want(k) {
				delete(about, k)
			}
		}
		if page = append(page, about); len(page) == most && i+1 < len(all) {
			next := *r.URL
			q.Set("cursor", base64.RawURLEncoding.EncodeToString([]byte(x.Repo.Name)))
			next.RawQuery = q.Encode()
			w.Header().Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", absolute(r, &next)))
			break
		}
	}
	return s.send(w, r, page)
}

// configOf returns the parts of a model's config.json that the Hub shows.
func configOf(text []byte) map[string]any {
	var c struct {
		Architectures []string `json:"architectures"`
		ModelType     string   `json:"model_type"`
	}
	if json.Unmarshal(text, &c) != nil || cmp.Or(c.ModelType, strings.Join(c.Architectures, "")) == "" {
		return nil
	}
	m := map[string]any{}
	if c.ModelType != "" {
		m["model_type"] = c.ModelType
	}
	if len(c.Architectures) > 0 {
		m["architectures"] = c.Architectures
	}
	return m
}
