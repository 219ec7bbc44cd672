package names

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of names.
const (
	// MaxName is how many bytes the whole name of a repository may have.
	MaxName = 96
	// MaxPath is how many bytes the path of a file may have, and MaxRevision a revision.
	MaxPath     = 1024
	MaxRevision = 250
)

// ErrBadName means that a repository, a revision or a path has a name that it may not have.
var ErrBadName = errors.New("bad name")

// kinds are the names of the kinds, as the Hub's paths have them in the plural.
var kinds = [...]string{Model: "model", Dataset: "dataset", Space: "space"}

// String returns the kind's name: "model", "dataset" or "space".
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return fmt.Sprintf("kind %d", k)
}

// Plural returns what the Hub's paths call the kind: "models", "datasets" or "spaces".
func (k Kind) Plural() string { return k.String() + "s" }

// Valid reports whether there is such a kind.
func (k Kind) Valid() bool { return int(k) < len(kinds) }

// ParseKind reads a kind's name, in the singular or, as the Hub's paths have it, the plural.
func ParseKind(s string) (Kind, bool) {
	i := slices.Index(kinds[:], strings.TrimSuffix(s, "s"))
	return Kind(max(i, 0)), i >= 0
}

// ParseRepo reads a repository as its String writes it: "org/name" is a model, "datasets/org/name" a dataset and
// "spaces/org/name" a space. The error wraps [ErrBadName].
func ParseRepo(s string) (Repo, error) {
	r := Repo{Name: s}
	if first, rest, ok := strings.Cut(s, "/"); ok && strings.HasSuffix(first, "s") {
		if k, known := ParseKind(first); known {
			r = Repo{Kind: k, Name: rest}
		}
	}
	return r, r.Check()
}

// String returns the name with the kind before it, save for models: "org/name", "datasets/org/name".
func (r Repo) String() string {
	if r.Kind == Model {
		return r.Name
	}
	return r.Kind.Plural() + "/" + r.Name
}

// Owner returns what stands before the slash of the name, or "".
func (r Repo) Owner() string {
	owner, _, ok := strings.Cut(r.Name, "/")
	if !ok {
		return ""
	}
	return owner
}

// taken are the first parts of paths that mean something else to those who serve repositories over HTTP.
var taken = []string{
	"api", "models", "datasets", "spaces", "ipfs", "ipns", "edge", "dash", "routing", "metrics", "debug", "healthz", "readyz",
	"resolve", "raw", "tree", "blob", "login", "settings", "static",
}

// Check says, wrapping [ErrBadName], why there can be no such repository. The rules are the Hub's: one or two parts of letters,
// digits, "-", "_" and ".", none of which begins or ends with "-" or ".", without "--" and "..", and not ending in ".git"; at
// most [MaxName] bytes in all. A few words cannot be the first part, because they are paths of something else.
func (r Repo) Check() error {
	if !r.Kind.Valid() {
		return fmt.Errorf("%w: there is no %v", ErrBadName, r.Kind)
	}
	bad := func(why string) error {
		return fmt.Errorf("%w %q of a repository: %s; right is one like org/name", ErrBadName, clip(r.Name), why)
	}
	if r.Name == "" || len(r.Name) > MaxName {
		return bad(fmt.Sprintf("it has %d bytes, and may have from 1 to %d", len(r.Name), MaxName))
	}
	parts := strings.Split(r.Name, "/")
	if len(parts) > 2 {
		return bad("it has more than two parts")
	}
	for _, p := range parts {
		switch {
		case p == "":
			return bad("a part is empty")
		case strings.ContainsFunc(p, func(c rune) bool { return !plain(c) }):
			return bad(`it may have letters, digits, "-", "_" and "." only`)
		case edge(p[0]) || edge(p[len(p)-1]):
			return bad(`no part begins or ends with "-" or "."`)
		case strings.Contains(p, "--"), strings.Contains(p, ".."):
			return bad(`"--" and ".." are forbidden`)
		case strings.HasSuffix(p, ".git"):
			return bad(`it ends in ".git"`)
		}
	}
	if slices.Contains(taken, strings.ToLower(parts[0])) {
		return bad(fmt.Sprintf("%q is a path of something else", parts[0]))
	}
	return nil
}

// plain reports whether a repository's name may contain c.
func plain(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

// edge reports whether c may stand only inside.
func edge(c byte) bool { return c == '-' || c == '.' }

// CheckRevision says, wrapping [ErrBadName], why a branch or a tag cannot be called s. The rules are git's, in short.
func CheckRevision(s string) error {
	bad := func(why string) error { return fmt.Errorf("%w %q of a revision: %s", ErrBadName, clip(s), why) }
	switch {
	case s == "" || len(s) > MaxRevision:
		return bad(fmt.Sprintf("it has %d bytes, and may have from 1 to %d", len(s), MaxRevision))
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return bad("it has control characters, spaces, or is not UTF-8")
	case strings.ContainsAny(s, `\~^:?*["`), strings.Contains(s, ".."), strings.Contains(s, "@{"):
		return bad(`it has one of \ ~ ^ : ? * [ " or ".." or "@{"`)
	}
	for p := range strings.SplitSeq(s, "/") {
		if p == "" || p[0] == '.' || strings.HasSuffix(p, ".") || strings.HasSuffix(p, ".lock") {
			return bad(`a part is empty, begins or ends with ".", or ends in ".lock"`)
		}
	}
	return nil
}

// CheckPath says, wrapping [ErrBadName], why a file of a repository cannot lie at a path. What it lets pass stays below the
// directory that it is joined to, on every system.
func CheckPath(s string) error {
	bad := func(why string) error { return fmt.Errorf("%w %q of a file: %s", ErrBadName, clip(s), why) }
	switch {
	case s == "" || len(s) > MaxPath:
		return bad(fmt.Sprintf("it has %d bytes, and may have from 1 to %d", len(s), MaxPath))
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return bad("it has control characters or is not UTF-8")
	case strings.Contains(s, `\`):
		return bad(`it has a "\", which some systems take for a slash`)
	}
	for p := range strings.SplitSeq(s, "/") {
		switch {
		case p == "" || p == "." || p == "..":
			return bad(`a part is empty, "." or ".."`)
		case len(p) > 1 && p[1] == ':' && (p[0]|0x20) >= 'a' && (p[0]|0x20) <= 'z':
			return bad("a part begins like a drive")
		}
	}
	return nil
}

// IsCommit reports whether a revision is a commit's id: forty digits, the letters small.
func IsCommit(revision string) bool { return isHex(revision, 40) }

// IsSHA256 reports whether s is a SHA-256 digest as files have it: 64 hexadecimal digits, the letters small.
func IsSHA256(s string) bool { return isHex(s, 64) }

func isHex(s string, n int) bool {
	return len(s) == n && !strings.ContainsFunc(s, func(c rune) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') })
}

// clip shortens what somebody else has written, for a complaint.
func clip(s string) string {
	if len(s) <= 100 {
		return s
	}
	return strings.ToValidUTF8(s[:97], "") + "…"
}
