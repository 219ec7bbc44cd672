package hub

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"dray/names"
)

// file answers a request for a file's content, or for what stands for it in git.
//
// Ranges: one range is answered with 206, several at once with the whole file, which is as right and what no client here needs;
// one that begins beyond the end with 416. A range is read from where it begins, whatever is here of the rest.
func (s *Server) file(w http.ResponseWriter, r *http.Request, c *names.Commit, p route) error {
	f, ok := c.Find(p.path)
	if !ok {
		return refusef(http.StatusNotFound, codeEntry, "there is no file %q in %v at %s", clip(p.path), c.Repo, p.revision)
	}
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", contentType(f.Path))
	h.Set("Content-Disposition", disposition(f.Path))
	if names.IsCommit(p.revision) {
		h.Set("Cache-Control", "private, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	if p.verb == "raw" && f.SHA256 != "" {
		text := names.Pointer(f.SHA256, f.Size)
		h.Set("ETag", quote(f.Blob))
		h.Set("Content-Type", plainText)
		return s.content(w, r, int64(len(text)), func() (Content, error) { return pointer{strings.NewReader(text)}, nil })
	}
	etag := f.Blob
	if f.SHA256 != "" {
		etag = f.SHA256
		h.Set("X-Linked-Etag", quote(etag))
		h.Set("X-Linked-Size", strconv.FormatInt(f.Size, 10))
	}
	h.Set("ETag", quote(etag))
	return s.content(w, r, f.Size, func() (Content, error) { return s.cfg.Library.Open(r.Context(), c, f) })
}

// pointer is a text as Content.
type pointer struct{ *strings.Reader }

func (pointer) Close() error { return nil }

func quote(s string) string { return `"` + s + `"` }

// content answers with what open returns, or a part of it. The header says what it is.
func (s *Server) content(w http.ResponseWriter, r *http.Request, size int64, open func() (Content, error)) error {
	h := w.Header()
	etag := h.Get("ETag")
	if match := r.Header.Get("If-None-Match"); match != "" && matches(match, etag) {
		h.Del("Content-Type")
		h.Del("Content-Disposition")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if match := r.Header.Get("If-Match"); match != "" && !matches(match, etag) {
		return refusef(http.StatusPreconditionFailed, "", "the file is another one by now: its ETag is %s", etag)
	}
	from, length, status := int64(0), size, http.StatusOK
	if x := r.Header.Get("Range"); x != "" && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == etag) {
		begin, n, ok := parseRange(x, size)
		switch {
		case !ok:
		case n > 0:
			from, length, status = begin, n, http.StatusPartialContent
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+length-1, size))
		case size == 0 && strings.Contains(r.Header.Get("Accept"), "xet-fileinfo"):
			// The npm client asks so for a file's size, and gives up when there is no first byte.
			status = http.StatusPartialContent
			h.Set("Content-Range", "bytes */0")
		default:
			s.fail(w, r, refusef(http.StatusRequestedRangeNotSatisfiable, "", "the file has %d bytes, and %q is not among them", size, clip(x)))
			return nil
		}
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	if r.Method == http.MethodHead || length == 0 {
		w.WriteHeader(status)
		return nil
	}
	c, err := open()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Seek(from, io.SeekStart); err != nil {
		return err
	}
	out := &body{s: s, w: w, status: status, left: length}
	err = out.readFrom(c)
	switch {
	case out.left == 0:
		return nil
	case err == nil:
		err = fmt.Errorf("%w: the file ended %d bytes early", ErrUpstream, out.left)
	}
	if !out.begun {
		return err
	}
	if r.Context().Err() == nil && !out.gone {
		s.cfg.Log.Warn("a file could not be sent to its end", "path", r.URL.Path, "err", err)
	}
	panic(http.ErrAbortHandler) // the only way to tell a client that what it got is not all
}

// body writes so many bytes of a content.
type body struct {
	s      *Server
	w      http.ResponseWriter
	status int
	left   int64
	begun  bool // the header was sent
	gone   bool // the client takes nothing more
}

// errEnough ends the copying of a content.
var errEnough = errors.New("enough")

// Write takes the next bytes, as far as they are wanted.
func (b *body) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.w.WriteHeader(b.status)
	}
	all := len(p)
	p = p[:min(int64(all), b.left)]
	b.s.extend(b.w)
	n, err := b.w.Write(p)
	b.left -= int64(n)
	switch {
	case err != nil:
		b.gone = true
		return n, err
	case b.left == 0:
		return all, errEnough
	}
	return n, nil
}

// readFrom copies, without copies in between if the content can write itself.
func (b *body) readFrom(c Content) error {
	var err error
	if x, ok := c.(io.WriterTo); ok {
		_, err = x.WriteTo(b)
	} else {
		_, err = io.CopyBuffer(b, struct{ io.Reader }{c}, make([]byte, min(b.left, 256<<10)))
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

// parseRange reads a Range header. It returns false for one that is not to be heeded, and no bytes for one outside the file.
// RFC 9110, section 14.2.
func parseRange(s string, size int64) (from, length int64, ok bool) {
	spec, ok := strings.CutPrefix(strings.TrimSpace(s), "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return 0, 0, false
	}
	number := func(s string) (int64, bool) {
		n, err := strconv.ParseUint(s, 10, 63)
		if errors.Is(err, strconv.ErrRange) {
			return 1<<63 - 1, true
		}
		return int64(n), err == nil
	}
	if first == "" {
		n, ok := number(last)
		n = min(n, size)
		return size - n, n, ok
	}
	from, ok = number(first)
	end := size - 1
	if ok && last != "" {
		var e int64
		if e, ok = number(last); e < from {
			return 0, 0, false
		}
		end = min(end, e)
	}
	if from >= size {
		return 0, 0, ok
	}
	return from, end - from + 1, ok
}

// matches reports whether a list of ETags has one.
func matches(list, etag string) bool {
	for x := range strings.SplitSeq(list, ",") {
		if x = strings.TrimSpace(x); x == "*" || strings.TrimPrefix(x, "W/") == etag {
			return true
		}
	}
	return false
}

const plainText = "text/plain; charset=utf-8"

// contentType says what a file is, to browsers: never something that they would run.
func contentType(p string) string {
	switch strings.ToLower(path.Ext(p)) {
	case ".md", ".txt", ".py", ".yaml", ".yml", ".toml", ".csv", ".tsv", ".jinja", ".gitattributes", ".gitignore":
		return plainText
	case ".json", ".jsonl":
		return "application/json; charset=utf-8"
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	}
	return "application/octet-stream"
}

// disposition names the file for those who save it.
func disposition(p string) string {
	name := path.Base(p)
	plain := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return '_'
		}
		return c
	}, name)
	return fmt.Sprintf("inline; filename*=UTF-8''%s; filename=%q", url.PathEscape(name), plain)
}
