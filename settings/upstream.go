package settings

import (
	"errors"
	"strings"
	"time"
)

// Upstream says which other Hub the swarm fetches from what it lacks. See docs/upstream.md.
type Upstream struct {
	// URL is where it is. If empty, there is none.
	URL string `toml:"url" doc:"another Hub, such as https://hub.example.org, from which the swarm fetches once what it lacks; empty is none"`
	// Token is what it is told, and nobody else.
	Token string `toml:"token" secret:"true" doc:"what proves to the upstream who asks; if empty, the variable HF_TOKEN"`
	// AllowPrivate lets the upstream send this host to private addresses.
	AllowPrivate bool `toml:"allow_private" doc:"follow the upstream's redirects to private addresses"`
	// Trust are peers besides members.
	Trust []string `toml:"trust" doc:"ids of peers, besides members, who are believed and get what the upstream does not show to everybody"`
	// Fresh is how long an answer about a branch holds.
	Fresh Duration `toml:"fresh" doc:"how long what the upstream said of a branch or tag holds"`
	// Linger is how long a file goes on to come that nobody reads.
	Linger Duration `toml:"linger" doc:"how long a file goes on to come that nobody reads any more"`
	// Silence and Patience are for those who are followed.
	Silence  Duration `toml:"silence" doc:"how long a peer that feeds a file may say nothing before another one is turned to"`
	Patience Duration `toml:"patience" doc:"how long it may bring no bytes"`
	// Files bounds what is read at a time.
	Files int `toml:"files" doc:"most files that are read from the upstream at a time"`
}

func defaultUpstream() Upstream {
	return Upstream{
		Fresh: Duration(time.Minute), Linger: Duration(time.Minute), Silence: Duration(10 * time.Second),
		Patience: Duration(time.Minute), Files: 8,
	}
}

func (u *Upstream) check() error {
	var errs []error
	if u.URL != "" && !isWebURL(u.URL) {
		errs = append(errs, Wrong("upstream.url", u.URL, "one like https://hub.example.org, without a user or a query"))
	}
	if strings.ContainsAny(u.Token, " \t\r\n") {
		errs = append(errs, errors.New("upstream.token has spaces or line breaks; right is the token alone"))
	}
	if u.Silence < Duration(time.Second) {
		errs = append(errs, Wrong("upstream.silence", u.Silence, "a second or more"))
	}
	if u.Patience < Duration(time.Second) {
		errs = append(errs, Wrong("upstream.patience", u.Patience, "a second or more"))
	}
	return errors.Join(append(errs, between("upstream.files", u.Files, 1, 256))...)
}
