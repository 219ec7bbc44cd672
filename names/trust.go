package names

import (
	"bufio"
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"dray"
)

// Trust says which keys are believed about which repositories. What comes first counts more. The zero Trust believes nobody. It
// is safe for concurrent use as long as nobody changes it.
type Trust struct {
	// Rules are in the order in which they count.
	Rules []Rule
}

// Rule trusts a key with some repositories.
type Rule struct {
	// Key is who is trusted.
	Key dray.PeerID
	// Repos is a pattern of repositories as their String writes them, in which * stands for all but a slash: "org/*",
	// "datasets/org/*", "org/name". If empty, the key is trusted with all.
	Repos string
}

// Rank returns how early the trust names a key for a repository, and whether it does.
func (t *Trust) Rank(key dray.PeerID, repo Repo) (int, bool) {
	for i, r := range t.Rules {
		if r.Key == key && r.Matches(repo) {
			return i, true
		}
	}
	return 0, false
}

// Matches reports whether the rule is about a repository.
func (r Rule) Matches(repo Repo) bool {
	ok, err := path.Match(r.Repos, repo.String())
	return r.Repos == "" || err == nil && ok
}

// String returns the rule as a line of a trust file.
func (r Rule) String() string { return strings.TrimSpace(r.Key.String() + " " + r.Repos) }

// ParseRule reads a rule: a key, as peers' ids are written, and perhaps a pattern after a space or "=".
func ParseRule(s string) (Rule, error) {
	words := strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == '\t' || c == '=' })
	if len(words) == 0 || len(words) > 2 {
		return Rule{}, fmt.Errorf("%q is no KEY, nor a KEY and a pattern such as org/*", clip(s))
	}
	key, err := dray.ParsePeerID(words[0])
	if err != nil || key.String() != words[0] {
		return Rule{}, fmt.Errorf("%q is no key; right is a peer id as `dray id` prints it, such as 12D3KooW…", clip(words[0]))
	}
	r := Rule{Key: key}
	if len(words) == 2 {
		r.Repos = words[1]
	}
	if _, err := path.Match(r.Repos, "org/name"); err != nil || strings.ContainsAny(r.Repos, "#\n") {
		return Rule{}, fmt.Errorf("%q is no pattern of repositories; right is one like org/* or org/name", clip(r.Repos))
	}
	return r, nil
}

// MaxTrustFile is how many bytes a trust file may have.
const MaxTrustFile = 1 << 20

// ParseTrust reads a trust file: a rule a line; what follows a # is a remark. The error names the line.
func ParseTrust(text []byte) (*Trust, error) {
	t := new(Trust)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		r, err := ParseRule(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		t.Rules = append(t.Rules, r)
	}
	return t, lines.Err()
}

// AddRule returns a trust file with a rule at its end, unless it is there.
func AddRule(text []byte, r Rule) ([]byte, error) {
	t, err := ParseTrust(text)
	if err != nil || slices.Contains(t.Rules, r) {
		return text, err
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return append(text, r.String()+"\n"...), nil
}

// RemoveKey returns a trust file without the rules of a key that are about the pattern, or with none given all of the key, and
// how many those were.
func RemoveKey(text []byte, key dray.PeerID, repos string) ([]byte, int, error) {
	if _, err := ParseTrust(text); err != nil {
		return text, 0, err
	}
	var out []byte
	removed := 0
	for line := range bytes.Lines(text) {
		plain, _, _ := strings.Cut(string(line), "#")
		if r, err := ParseRule(strings.TrimSpace(plain)); err == nil && r.Key == key && (repos == "" || r.Repos == repos) {
			removed++
			continue
		}
		out = append(out, line...)
	}
	return out, removed, nil
}
