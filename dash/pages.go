package dash

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed page
var pageFiles embed.FS

// page is a file that never changes while the program runs.
type page struct {
	text []byte
	kind string
	etag string
}

// pages are the files, by name.
type pages map[string]page

var pageKinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

func loadPages() (pages, error) {
	all := make(pages)
	err := fs.WalkDir(pageFiles, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := pageFiles.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		all[path.Base(name)] = page{text: text, kind: pageKinds[path.Ext(name)], etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	return all, err
}

// servePage answers with a file. The browser asks each time whether it has changed: a daemon may be replaced by another version.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if name == "" {
		name = "index.html"
	}
	p, ok := s.pages[name]
	if !ok {
		fail(w, http.StatusNotFound, "there is no "+clip(r.URL.Path))
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", p.etag)
	if strings.Contains(r.Header.Get("If-None-Match"), p.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", p.kind)
	h.Set("Content-Length", strconv.Itoa(len(p.text)))
	_, _ = w.Write(p.text) // the client may be gone
}
