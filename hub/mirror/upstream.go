package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"dray"
	"dray/hub"
	"dray/names"
	"dray/origin"
)

// Bounds on what an upstream says.
const (
	mostInfo    = 4 << 20  // bytes of a repository's description that are read
	mostPage    = 16 << 20 // bytes of one page of a tree
	mostPages   = 1000
	mostFiles   = 200_000
	longestWait = time.Minute // that an upstream's wish to wait is heeded; beyond, the request fails at once
)

// UpstreamConfig says where the upstream is.
type UpstreamConfig struct {
	// URL is its address, as HF_ENDPOINT would say it. It is required.
	URL string
	// Token proves to the upstream, and to nobody else, who asks. If empty, nothing does.
	Token string
	// AllowPrivate lets redirects and names lead to private addresses. An address that URL spells out is always allowed.
	AllowPrivate bool
	// Client does the requests, guarded and with credentials already. If nil, one from package origin.
	Client *http.Client
	// Attempts is how often a request is made that fails for a reason that may pass. If zero, 5.
	Attempts int
	// Backoff is how long to wait before the second attempt; it doubles up to 16 times that. If zero, 250 ms.
	Backoff time.Duration
	// Stall is how long an answer may bring no byte. If zero, 10 s.
	Stall time.Duration
	// Log is told of what is tried again. If nil, nothing is logged.
	Log *slog.Logger
}

// Upstream is another Hub, as its client. It is safe for concurrent use.
type Upstream struct {
	base   *url.URL
	client *http.Client
	retry  retrypolicy.RetryPolicy[*http.Response]
	pace   pace
	log    *slog.Logger
}

// NewUpstream returns a client of the Hub at an address. The error says what is wrong with that.
func NewUpstream(cfg UpstreamConfig) (*Upstream, error) {
	base, err := url.Parse(strings.TrimRight(cfg.URL, "/"))
	switch {
	case err != nil:
		return nil, fmt.Errorf("upstream: %w", err)
	case base.Scheme != "http" && base.Scheme != "https", base.Host == "", base.RawQuery != "", base.Fragment != "":
		return nil, fmt.Errorf("upstream: %q is no address like https://hub.example.org", cfg.URL)
	case base.User != nil:
		return nil, errors.New("upstream: its address must not contain a user name; give a token")
	case cfg.Token != "" && strings.ContainsAny(cfg.Token, "\r\n"):
		return nil, errors.New("upstream: the token has a line break")
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = 5
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 250 * time.Millisecond
	}
	if cfg.Stall == 0 {
		cfg.Stall = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	u := &Upstream{base: base, client: cfg.Client, log: cfg.Log}
	if u.client == nil {
		o := origin.Config{URL: base, AllowPrivate: cfg.AllowPrivate, Stall: cfg.Stall}
		if cfg.Token != "" {
			o.Credentials = func(r *http.Request) error {
				r.Header.Set("Authorization", "Bearer "+cfg.Token)
				return nil
			}
		}
		u.client = origin.NewClient(o)
	}
	u.retry = retrypolicy.NewBuilder[*http.Response]().
		WithMaxAttempts(cfg.Attempts).WithBackoff(cfg.Backoff, 16*cfg.Backoff).WithJitterFactor(0.2).ReturnLastFailure().
		HandleIf(func(_ *http.Response, err error) bool { return passing(err) }).
		OnRetryScheduled(func(e failsafe.ExecutionScheduledEvent[*http.Response]) {
			u.log.Info("upstream is asked again", "after", e.Delay, "because", e.LastError())
		}).Build()
	return u, nil
}

// Close lets go of connections that nobody uses.
func (u *Upstream) Close() { u.client.CloseIdleConnections() }

// answerError is an answer that is no success.
type answerError struct {
	status int
	code   string // the Hub's own, such as EntryNotFound
	text   string
}

func (e *answerError) Error() string {
	s := fmt.Sprintf("it answered %d %s", e.status, http.StatusText(e.status))
	if e.code != "" {
		s += ", " + e.code
	}
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

// passing reports whether what failed may work when it is tried again.
func passing(err error) bool {
	var a *answerError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, dray.ErrRefused), errors.Is(err, errTooLong):
		return false
	case errors.As(err, &a):
		return a.status >= 500 || a.status == http.StatusTooManyRequests || a.status == http.StatusRequestTimeout
	}
	return true
}

// sentinel returns what a failure means to a Library; unknown is what a 404 without a code means.
func sentinel(err, unknown error) error {
	var a *answerError
	if !errors.As(err, &a) {
		return fmt.Errorf("%w: %w", hub.ErrUpstream, err)
	}
	means := hub.ErrUpstream
	switch {
	case a.code == "RepoNotFound":
		means = hub.ErrRepoNotFound
	case a.code == "RevisionNotFound":
		means = hub.ErrRevisionNotFound
	case a.code == "EntryNotFound":
		means = hub.ErrEntryNotFound
	case a.code == "GatedRepo", a.status == http.StatusUnauthorized, a.status == http.StatusForbidden:
		means = hub.ErrGated
	case a.status == http.StatusNotFound:
		means = unknown
	}
	return fmt.Errorf("%w: upstream: %w", means, err)
}

// do makes a request, again when that may help, and returns an answer with one of the wanted statuses, whose body the caller
// closes.
func (u *Upstream) do(ctx context.Context, at string, header http.Header, want ...int) (*http.Response, error) {
	return failsafe.With(u.retry).WithContext(ctx).Get(func() (*http.Response, error) { return u.once(ctx, at, header, want) })
}

func (u *Upstream) once(ctx context.Context, at string, header http.Header, want []int) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	r.Header.Set("Accept-Encoding", "identity")
	ours := origin.Same(r.URL, u.base)
	if ours {
		if err := u.pace.wait(ctx); err != nil {
			return nil, err
		}
	}
	resp, err := u.client.Do(r)
	if err != nil {
		return nil, err
	}
	if ours {
		u.pace.heed(resp)
	}
	if slices.Contains(want, resp.StatusCode) {
		return resp, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	_ = resp.Body.Close()
	said := resp.Header.Get("X-Error-Message")
	if said == "" && !bytes.ContainsRune(text, '<') {
		said = string(text)
	}
	return nil, &answerError{status: resp.StatusCode, code: clip(resp.Header.Get("X-Error-Code"), 40), text: clip(said, 200)}
}

// clip makes a stranger's words fit for a line.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func (u *Upstream) api(repo names.Repo, verb, revision string) string {
	return u.base.String() + "/api/" + repo.Kind.Plural() + "/" + escape(repo.Name) + "/" + verb + "/" + url.PathEscape(revision)
}

func escape(p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// resolve returns the address of a file.
func (u *Upstream) resolve(repo names.Repo, commit, path string) string {
	prefix := "/"
	if repo.Kind != names.Model {
		prefix = "/" + repo.Kind.Plural() + "/"
	}
	return u.base.String() + prefix + escape(repo.Name) + "/resolve/" + url.PathEscape(commit) + "/" + escape(path)
}

// known is a commit, as the upstream describes it.
type known struct {
	names.Commit
	// Restricted says that the upstream does not show it to everybody.
	Restricted bool
}

// Commit asks what a revision of a repository is.
func (u *Upstream) Commit(ctx context.Context, repo names.Repo, revision string) (*known, error) {
	if err := checkNames(repo, revision); err != nil {
		return nil, err
	}
	var info struct {
		SHA      string          `json:"sha"`
		Modified time.Time       `json:"lastModified"`
		Private  bool            `json:"private"`
		Gated    json.RawMessage `json:"gated"`
	}
	resp, err := u.do(ctx, u.api(repo, "revision", revision), nil, http.StatusOK)
	if err != nil {
		return nil, sentinel(err, hub.ErrRevisionNotFound)
	}
	if err := readJSON(resp, mostInfo, &info); err != nil {
		return nil, sentinel(err, nil)
	}
	if !names.IsCommit(info.SHA) {
		return nil, fmt.Errorf("%w: the commit of %s at %s is said to be %q, which is no commit's id", hub.ErrUpstream,
			repo.Name, revision, clip(info.SHA, 60))
	}
	k := &known{Commit: names.Commit{Repo: repo, ID: info.SHA, Time: info.Modified}}
	gated := string(bytes.TrimSpace(info.Gated))
	k.Restricted = info.Private || gated != "" && gated != "false" && gated != "null"
	if k.Files, err = u.tree(ctx, repo, info.SHA); err != nil {
		return nil, err
	}
	return k, nil
}

// tree lists the files of a commit, page by page.
func (u *Upstream) tree(ctx context.Context, repo names.Repo, commit string) ([]names.File, error) {
	var files []names.File
	at := u.api(repo, "tree", commit) + "?recursive=true&expand=false"
	for range mostPages {
		resp, err := u.do(ctx, at, nil, http.StatusOK)
		if err != nil {
			return nil, sentinel(err, hub.ErrRevisionNotFound)
		}
		var page []struct {
			Type, OID, Path string
			Size            int64
			LFS             *struct {
				OID  string
				Size int64
			}
		}
		if err := readJSON(resp, mostPage, &page); err != nil {
			return nil, sentinel(err, nil)
		}
		for _, e := range page {
			if e.Type != "file" {
				continue
			}
			f := names.File{Path: e.Path, Size: e.Size, Blob: e.OID}
			if e.LFS != nil {
				f.SHA256, f.Size = strings.TrimPrefix(e.LFS.OID, "sha256:"), e.LFS.Size
			}
			if err := f.Check(); err != nil {
				return nil, fmt.Errorf("%w: the tree of %s at %s: %w", hub.ErrUpstream, repo.Name, commit, err)
			}
			files = append(files, f)
		}
		if len(files) > mostFiles {
			return nil, fmt.Errorf("%w: %s has more than %d files", hub.ErrUpstream, repo.Name, mostFiles)
		}
		next, err := u.nextPage(resp)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", hub.ErrUpstream, err)
		}
		if next == "" {
			return sorted(files)
		}
		at = next
	}
	return nil, fmt.Errorf("%w: the tree of %s has more than %d pages", hub.ErrUpstream, repo.Name, mostPages)
}

func sorted(files []names.File) ([]names.File, error) {
	slices.SortFunc(files, func(a, b names.File) int { return strings.Compare(a.Path, b.Path) })
	for i := 1; i < len(files); i++ {
		if files[i].Path == files[i-1].Path {
			return nil, fmt.Errorf("%w: the tree lists %q twice", hub.ErrUpstream, clip(files[i].Path, 100))
		}
	}
	return files, nil
}

// nextPage returns the link with rel="next" of an answer (RFC 8288), which must stay with the upstream.
func (u *Upstream) nextPage(resp *http.Response) (string, error) {
	for _, line := range resp.Header.Values("Link") {
		for link := range strings.SplitSeq(line, ",") {
			target, params, ok := strings.Cut(link, ";")
			target = strings.TrimSpace(target)
			if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") || len(target) < 2 {
				continue
			}
			next, err := resp.Request.URL.Parse(strings.Trim(target, "<>"))
			if err != nil {
				return "", err
			}
			if !origin.Same(next, u.base) {
				return "", fmt.Errorf("the next page of a tree is said to be at %s, which is elsewhere", next.Host)
			}
			return next.String(), nil
		}
	}
	return "", nil
}

func readJSON(resp *http.Response, most int64, to any) error {
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return err
	}
	if int64(len(text)) > most {
		return fmt.Errorf("an answer has more than %d bytes", most)
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("an answer makes no sense: %w", err)
	}
	return nil
}

// checkNames refuses what no Hub calls a repository or a revision.
func checkNames(repo names.Repo, revision string) error {
	if err := repo.Check(); err != nil {
		return fmt.Errorf("%w: %w", hub.ErrRepoNotFound, err)
	}
	if err := names.CheckRevision(revision); err != nil {
		return fmt.Errorf("%w: %w", hub.ErrRevisionNotFound, err)
	}
	return nil
}

// ranged asks for the bytes of a file from one on up to and not including another. It returns the body, where the body ends, and
// the address that answered at last, which may be asked directly for more of it. A validator, if not empty, must still hold.
func (u *Upstream) ranged(ctx context.Context, at string, size, from, to int64, validator string) (*ranged, error) {
	header := make(http.Header)
	want := []int{http.StatusPartialContent}
	if from > 0 || to < size {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
		if validator != "" {
			header.Set("If-Range", validator)
		}
	}
	if from == 0 {
		want = append(want, http.StatusOK) // all of it, because that was asked for, or because it knows no ranges
	}
	resp, err := u.do(ctx, at, header, want...)
	if err != nil {
		return nil, err
	}
	r := &ranged{ReadCloser: resp.Body, end: to, at: resp.Request.URL.String(), validator: resp.Header.Get("ETag")}
	if strings.HasPrefix(r.validator, "W/") {
		r.validator = ""
	}
	if resp.StatusCode == http.StatusOK {
		if r.end = size; resp.ContentLength >= 0 && resp.ContentLength != size {
			err = fmt.Errorf("it has %d bytes, not %d", resp.ContentLength, size)
		}
	} else if got := resp.Header.Get("Content-Range"); !rangeIs(got, from, to, size) {
		err = fmt.Errorf("asked for bytes %d to %d of %d, it answers with %q", from, to-1, size, clip(got, 80))
	}
	if err == nil && resp.Header.Get("Content-Encoding") != "" && resp.Header.Get("Content-Encoding") != "identity" {
		err = errors.New("it compresses what was asked for as it is")
	}
	if err != nil {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: %s: %w", hub.ErrUpstream, resp.Request.URL.Host, err)
	}
	return r, nil
}

// ranged is the body of an answer, which ends at a byte of the file.
type ranged struct {
	io.ReadCloser
	end           int64
	at, validator string
}

// rangeIs reads a Content-Range (RFC 9110, section 14.4).
func rangeIs(s string, from, to, size int64) bool {
	s, ok := strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(s, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return false
	}
	a, err1 := strconv.ParseInt(first, 10, 64)
	b, err2 := strconv.ParseInt(last, 10, 64)
	c, err3 := strconv.ParseInt(total, 10, 64)
	return err1 == nil && err2 == nil && (total == "*" || err3 == nil && c == size) && a == from && b == to-1
}
