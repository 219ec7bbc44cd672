package hub

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"dray/names"
)

// A route is what a path of the Hub's asks for. The paths are
//
//	/api/{kind}s                                    list
//	/api/{kind}s/{repo}                             info
//	/api/{kind}s/{repo}/revision/{revision}         info
//	/api/{kind}s/{repo}/tree/{revision}[/{path}]    tree
//	/api/{kind}s/{repo}/paths-info/{revision}       paths-info
//	/api/{kind}s/{repo}/refs                        refs
//	/api/{kind}s/{repo}/commits/{revision}          commits
//	/api/whoami-v2                                  whoami-v2
//	[/{kind}s]/{repo}/resolve/{revision}/{path}     resolve
//	[/{kind}s]/{repo}/raw/{revision}/{path}         raw
//
// where {repo} is one or two parts, and a revision with slashes is either encoded, as "refs%2Fpr%2F1", or one of the Hub's own,
// which begin with "refs/".
type route struct {
	verb     string
	repo     names.Repo
	revision string
	path     string
}

// verbs are what may follow a repository, and the number of parts that must come after each.
var (
	apiVerbs  = map[string]int{"revision": 1, "tree": 1, "paths-info": 1, "refs": 0, "commits": 1}
	fileVerbs = map[string]int{"resolve": 2, "raw": 2}
)

// mainRevision is the branch that is meant when none is named, or "HEAD".
const mainRevision = "main"

// maxEscapedPath bounds the path of a request.
const maxEscapedPath = 8 << 10

// parseRoute reads the path of a request, as it was sent. The error is a [*refusal].
func parseRoute(escaped string) (route, error) {
	if len(escaped) > maxEscapedPath {
		return route{}, refusef(414, "", "the path has %d bytes, more than %d", len(escaped), maxEscapedPath)
	}
	var parts []string
	for p := range strings.SplitSeq(strings.Trim(escaped, "/"), "/") {
		s, err := url.PathUnescape(p)
		if err != nil {
			return route{}, refusef(400, "", "the path is not encoded as paths are: %q", p)
		}
		parts = append(parts, s)
	}
	if parts[0] == "api" {
		return parseAPI(parts[1:])
	}
	r := route{}
	if k, ok := names.ParseKind(parts[0]); ok && strings.HasSuffix(parts[0], "s") {
		r.repo.Kind, parts = k, parts[1:]
	}
	return r.read(parts, fileVerbs)
}

func parseAPI(parts []string) (route, error) {
	if len(parts) == 1 && parts[0] == "whoami-v2" {
		return route{verb: parts[0]}, nil
	}
	if len(parts) == 0 || !strings.HasSuffix(parts[0], "s") {
		return route{}, errNoPage
	}
	k, ok := names.ParseKind(parts[0])
	if !ok {
		return route{}, errNoPage
	}
	r := route{repo: names.Repo{Kind: k}}
	if len(parts) == 1 {
		r.verb = "list"
		return r, nil
	}
	return r.read(parts[1:], apiVerbs)
}

// read reads what follows the kind.
func (r route) read(parts []string, verbs map[string]int) (route, error) {
	at := len(parts) // where the repository's name ends
	for _, i := range []int{2, 1} {
		if i < len(parts) {
			if least, ok := verbs[parts[i]]; ok && len(parts)-i-1 >= least {
				at = i
				break
			}
		}
	}
	if at > 2 || at == len(parts) && verbs["resolve"] > 0 {
		return r, errNoPage
	}
	r.repo.Name = strings.Join(parts[:at], "/")
	if slices.ContainsFunc(parts[:at], func(p string) bool { return strings.Contains(p, "/") }) || r.repo.Check() != nil {
		return r, refusef(404, codeRepo, "there is no repository %q: it is no name that one could have", clip(r.repo.Name))
	}
	if at == len(parts) {
		r.verb, r.revision = "info", mainRevision
		return r, nil
	}
	r.verb, parts = parts[at], parts[at+1:]
	if len(parts) > 0 {
		n := 1
		if parts[0] == "refs" && len(parts) >= 3 {
			n = 3 // refs/pr/1, which some clients do not encode
		}
		r.revision, r.path = strings.Join(parts[:n], "/"), strings.Join(parts[n:], "/")
	}
	switch {
	case r.verb == "revision":
		r.verb = "info"
		fallthrough
	case r.verb == "paths-info", r.verb == "commits":
		if r.path != "" {
			r.revision, r.path = r.revision+"/"+r.path, "" // nothing else may follow
		}
	}
	if r.revision == "HEAD" || r.revision == "" {
		r.revision = mainRevision
	}
	r.revision = strings.TrimPrefix(r.revision, "refs/heads/")
	if err := names.CheckRevision(r.revision); err != nil {
		return r, refusef(404, codeRevision, "there is no revision %q of %v", clip(r.revision), r.repo)
	}
	if r.path != "" || r.verb == "resolve" || r.verb == "raw" {
		if err := names.CheckPath(r.path); err != nil {
			return r, refusef(404, codeEntry, "there is no file %q in %v", clip(r.path), r.repo)
		}
	}
	return r, nil
}

// refusal is an error with what the client is told: a status, the Hub's code for it, if it has one, and a sentence.
type refusal struct {
	status int
	code   string
	text   string
	// after, if set, is in how many seconds it may go better.
	after int
}

func (r *refusal) Error() string { return r.text }

// The Hub's codes.
const (
	codeRepo     = "RepoNotFound"
	codeRevision = "RevisionNotFound"
	codeEntry    = "EntryNotFound"
	codeGated    = "GatedRepo"
)

func refusef(status int, code, format string, args ...any) error {
	return &refusal{status: status, code: code, text: fmt.Sprintf(format, args...)}
}

var errNoPage = refusef(404, "", "there is nothing at this path: the Hub's API is at /api, files at /{repo}/resolve/{revision}/{path}")

// clip shortens what a client has sent, for a complaint.
func clip(s string) string {
	if len(s) <= 100 {
		return s
	}
	return strings.ToValidUTF8(s[:97], "") + "…"
}
