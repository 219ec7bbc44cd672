package edge

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// lease says what a source allows a shared cache to do with an answer (RFC 9111).
type lease struct {
	// Keep says that it may be stored at all.
	Keep bool `json:"keep"`
	// Fresh is how long it may be served without asking, from when it was made.
	Fresh time.Duration `json:"fresh"`
	// Strict says that it must not be served afterwards, even if no source answers.
	Strict bool `json:"strict,omitempty"`
	// Stale is how long it may be served afterwards while no source answers, or -1 if the source does not say.
	Stale time.Duration `json:"stale"`
}

// leaseOf reads the headers of an answer. What they do not say is as ttl says.
func leaseOf(h http.Header, ttl time.Duration) lease {
	l := lease{Keep: true, Fresh: -1, Stale: -1}
	shared := false
	for _, d := range directives(h) {
		switch d.name {
		case "no-store", "private":
			l.Keep = false
		case "no-cache":
			l.Fresh, shared = 0, true // it may be stored, and is asked for every time
		case "must-revalidate", "proxy-revalidate":
			l.Strict = true
		case "s-maxage":
			// RFC 9111, section 5.2.2.10: it overrides the others, and what is stale is not served.
			if s, ok := d.seconds(); ok && (!shared || l.Fresh > 0) {
				l.Fresh, l.Strict, shared = s, true, true
			}
		case "max-age":
			if s, ok := d.seconds(); ok && !shared && (l.Fresh < 0 || s < l.Fresh) {
				l.Fresh = s
			}
		case "stale-if-error":
			if s, ok := d.seconds(); ok {
				l.Stale = s
			}
		}
	}
	if l.Fresh < 0 {
		l.Fresh = expires(h, ttl)
	}
	if len(h.Values("Set-Cookie")) > 0 || !sameForAll(h) {
		l.Keep = false
	}
	return l
}

// expires reads the older header for the same thing (RFC 9111, section 5.3).
func expires(h http.Header, ttl time.Duration) time.Duration {
	text := h.Get("Expires")
	if text == "" {
		return max(ttl, 0)
	}
	until, err := http.ParseTime(text)
	date, derr := http.ParseTime(h.Get("Date"))
	if err != nil || derr != nil {
		return 0 // section 5.3: what is no date means the past
	}
	return max(until.Sub(date), 0)
}

// sameForAll reports whether everybody gets the same answer (RFC 9111, section 4.1). Requests go out without an
// encoding and without an Origin, whoever asks; what depends on anything else may be wrong for the next client.
func sameForAll(h http.Header) bool {
	for _, line := range h.Values("Vary") {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			if name != "" && !strings.EqualFold(name, "Accept-Encoding") && !strings.EqualFold(name, "Origin") {
				return false
			}
		}
	}
	return true
}

// age returns how old an answer was when it came (RFC 9111, section 4.2.3, without the clocks of others).
func age(h http.Header) time.Duration {
	s, err := strconv.ParseUint(strings.TrimSpace(h.Get("Age")), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}

// directive is one item of a Cache-Control header.
type directive struct{ name, value string }

func directives(h http.Header) []directive {
	var list []directive
	for _, line := range h.Values("Cache-Control") {
		for item := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
			list = append(list, directive{strings.ToLower(strings.TrimSpace(name)), strings.Trim(strings.TrimSpace(value), `"`)})
		}
	}
	return list
}

// seconds reads a number of seconds. One that is none means the past (RFC 9111, section 4.2.1).
func (d directive) seconds() (time.Duration, bool) {
	if d.value == "" {
		return 0, false
	}
	s, err := strconv.ParseUint(d.value, 10, 64)
	if err != nil {
		return 0, true
	}
	return time.Duration(min(s, 1<<31)) * time.Second, true
}
