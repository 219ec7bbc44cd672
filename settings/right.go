package settings

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// between returns what is wrong with a value that must lie within bounds.
func between[T ~int | ~int64](key string, n, least, most T) error {
	if n >= least && n <= most {
		return nil
	}
	return Wrong(key, n, fmt.Sprintf("between %v and %v", least, most))
}

// among returns what is wrong with a value that must be one of a few.
func among(key, value string, right []string) error {
	if slices.Contains(right, value) {
		return nil
	}
	return Wrong(key, value, oneOf(right))
}

// oneOf lists what a value may be.
func oneOf(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// isWebURL reports whether a text is the URL of a server, with nothing in it that requests would not carry on: no user, no query
// and no fragment.
func isWebURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" &&
		u.User == nil && u.RawQuery == "" && u.Fragment == ""
}
