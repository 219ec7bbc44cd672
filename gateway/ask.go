package gateway

import (
	"context"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"dray"
)

const (
	maxRanges  = 64       // in one request
	maxAccepts = 64       // kinds of answers that a client may list
	maxPath    = 16 << 10 // bytes of a path
)

// ask is what a client asks for, in a form in which boxo takes it as it is meant. It is read from the request line and
// headers, without looking at any content.
type ask struct {
	r     *http.Request
	root  cid.Cid
	names []string // below the root
	// format is the media type of the answer, or "" for what the content is.
	format string
	accept string // the header that says so; "" when the format is the URL's
	cached bool   // only what is local
	// download says that the answer is to be saved and not shown.
	download bool
}

const (
	formatRaw = "application/vnd.ipld.raw"
	formatCAR = "application/vnd.ipld.car"
	formatTAR = "application/x-tar"
)

// formats are the values of ?format, path gateway, "format (request query parameter)".
var formats = map[string]string{
	"raw": formatRaw, "car": formatCAR, "tar": formatTAR,
	"json": "application/json", "cbor": "application/cbor",
	"dag-json": "application/vnd.ipld.dag-json", "dag-cbor": "application/vnd.ipld.dag-cbor",
	"ipns-record": "application/vnd.ipfs.ipns-record",
}

// readAsk reads a request. A code other than 0 says that it is refused, and why.
func readAsk(r *http.Request) (a ask, code int, why string) {
	a.r = r
	if a.root, a.names, code, why = readPath(r.URL.Path); code != 0 {
		return a, code, why
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return a, http.StatusBadRequest, "the query of the URL cannot be read: " + err.Error()
	}
	a.download = q.Get("download") == "true"
	if f := q.Get("format"); f != "" {
		known, ok := formats[f]
		if !ok {
			return a, http.StatusNotAcceptable, "there is no format " + strconv.Quote(clip(f)) + "; there are raw, car, tar, " +
				"json, cbor, dag-json and dag-cbor"
		}
		a.format = known
	}
	if a.accept, why = readAccept(r.Header.Values("Accept"), a.format); why != "" {
		return a, http.StatusBadRequest, why
	}
	if a.format == "" {
		a.format, _, _ = strings.Cut(a.accept, ";")
	}
	if n := rangesOf(r.Header.Get("Range")); n > maxRanges {
		return a, http.StatusRequestedRangeNotSatisfiable,
			"Range lists " + strconv.Itoa(n) + " ranges; at most " + strconv.Itoa(maxRanges) + " are served in one request"
	}
	for _, v := range r.Header.Values("Cache-Control") {
		for d := range strings.SplitSeq(v, ",") {
			a.cached = a.cached || strings.EqualFold(strings.TrimSpace(d), "only-if-cached")
		}
	}
	return a, 0, ""
}

// readPath reads /ipfs/CID/a/b. It takes no path apart in which a name means another place.
func readPath(p string) (root cid.Cid, names []string, code int, why string) {
	if len(p) > maxPath {
		return root, nil, http.StatusRequestURITooLong, "the path is longer than " + strconv.Itoa(maxPath) + " bytes"
	}
	rest, ok := strings.CutPrefix(p, "/ipfs/")
	switch {
	case strings.HasPrefix(p, "/ipns/"):
		return root, nil, http.StatusNotImplemented,
			"this gateway serves /ipfs/CID only: no names (/ipns), no DNSLink, no subdomains"
	case !ok:
		return root, nil, http.StatusNotFound, "there is nothing here; right is /ipfs/CID or /ipfs/CID/path"
	}
	first, below, _ := strings.Cut(rest, "/")
	if first == "ipfs" || first == "ipns" || first == "" {
		return root, nil, 0, "" // boxo redirects, or says what is missing
	}
	root, err := cid.Decode(first)
	if err == nil {
		err = dray.CheckCID(root)
	}
	if err != nil {
		why = strconv.Quote(clip(first)) + " is no CID that this gateway can verify: " + err.Error()
		return cid.Undef, nil, http.StatusBadRequest, why
	}
	for name := range strings.SplitSeq(below, "/") {
		switch {
		case name == "":
		case name == "." || name == ".." || strings.ContainsRune(name, 0):
			why = "the path has a name " + strconv.Quote(name) + ", which no directory has"
			return cid.Undef, nil, http.StatusBadRequest, why
		default:
			names = append(names, name)
		}
	}
	return root, names, 0, ""
}

// accepted reports whether a media type asks for something else than what the content is.
func accepted(t string) bool {
	return strings.HasPrefix(t, "application/vnd.ipld.") || strings.HasPrefix(t, "application/vnd.ipfs.") ||
		t == formatTAR || t == "application/json" || t == "application/cbor"
}

// readAccept returns the kind of answer that the client likes best, as the header Accept with this one kind; "" for
// none in particular. Of kinds that are liked the same the first is meant. With a format from the URL only that kind
// counts.
func readAccept(values []string, format string) (string, string) {
	type kind struct {
		text string
		q    float64
	}
	var best kind
	count := 0
	for _, v := range values {
		for one := range splitQuoted(v) {
			one = strings.TrimSpace(one)
			t, _, _ := strings.Cut(one, ";")
			t = strings.ToLower(strings.TrimSpace(t))
			if count++; count > maxAccepts {
				return "", "Accept lists more than " + strconv.Itoa(maxAccepts) + " kinds of answers"
			}
			if !accepted(t) || format != "" && t != format {
				continue
			}
			t, params, err := mime.ParseMediaType(one)
			if err != nil {
				return "", "Accept has " + strconv.Quote(clip(one)) + ", which cannot be read: " + err.Error()
			}
			q := 1.0
			if s, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(s, 64); err != nil || !(q >= 0 && q <= 1) { // NaN is neither
					return "", "Accept has a weight q=" + clip(s) + "; right is a number from 0 to 1"
				}
			}
			for name := range params {
				if name != "version" && name != "order" && name != "dups" { // boxo takes no quotes, and knows no others
					delete(params, name)
				}
			}
			if q > best.q {
				best = kind{mime.FormatMediaType(t, params), q}
			}
		}
	}
	return best.text, ""
}

// splitQuoted yields the parts of s between commas that are not within quotes.
func splitQuoted(s string) func(func(string) bool) {
	return func(yield func(string) bool) {
		quoted, escaped, start := false, false, 0
		for i := range len(s) {
			switch c := s[i]; {
			case escaped:
				escaped = false
			case quoted && c == '\\':
				escaped = true
			case c == '"':
				quoted = !quoted
			case c == ',' && !quoted:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[start:])
	}
}

// rangesOf counts the ranges that a header lists.
func rangesOf(h string) int {
	if h == "" {
		return 0
	}
	return strings.Count(h, ",") + 1
}

// plain reports whether the answer depends on the path alone, but for the part of it that is sent.
func (a *ask) plain() bool {
	return a.format == "" && !a.cached && a.r.URL.RawQuery == "" && a.r.Method == http.MethodGet && a.r.Header["Service-Worker"] == nil
}

// stream reports whether the answer is made while it is sent, so that there are no parts of it.
func (a *ask) stream() bool { return a.format == formatCAR || a.format == formatTAR }

// forBoxo returns the request as boxo is to see it: as if it were of this method, and without ranges, which boxo does not make.
func (a *ask) forBoxo(ctx context.Context, method string) *http.Request {
	r := a.r.WithContext(ctx) // a copy, but of the header
	r.Method = method
	r.Header = make(http.Header, len(a.r.Header))
	for name, values := range a.r.Header {
		switch name {
		case "Accept", "Range", "If-Range":
		case "X-Forwarded-Host": // it would choose another gateway, and there is one
		default:
			r.Header[name] = values
		}
	}
	html := func(s string) bool { return strings.Contains(s, "text/html") }
	switch {
	case a.accept != "":
		r.Header["Accept"] = []string{a.accept}
	case method == http.MethodGet && slices.ContainsFunc(a.r.Header["Accept"], html):
		r.Header["Accept"] = []string{"text/html"} // not for HEAD: boxo would show a graph that it has not read
	}
	if a.cached {
		r.Header["Cache-Control"] = []string{"only-if-cached"}
	}
	return r
}

// forContent returns the request for whoever sends the body.
func (a *ask) forContent() *http.Request {
	// Units other than bytes are to be ignored, RFC 9110, section 14.2.
	if v := a.r.Header.Get("Range"); v == "" || strings.HasPrefix(v, "bytes=") {
		return a.r
	}
	r := a.r.Clone(a.r.Context())
	r.Header.Del("Range")
	return r
}

// clip shortens what a client wrote, for an answer.
func clip(s string) string { return s[:min(len(s), 80)] }
