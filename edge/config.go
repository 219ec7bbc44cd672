package edge

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// Config says what an Edge caches, where and for how long. Only Dir must be set.
type Config struct {
	// Dir is the directory of the cache, which is made if it is not there. No other Edge may use it.
	Dir string
	// Size is how much of the disk leaves may take, in bytes. If zero, 10 GB.
	Size int64
	// Segment is the size of a segment in bytes. If zero, 1 MiB; at most dray.MaxBlockSize. Other sizes than 1 MiB are
	// for tests.
	Segment int64
	// Objects is how many objects are remembered; beyond that the least recently used are forgotten. If zero, 65,536.
	Objects int
	// Runs is how many answers are read at the same time; more wait. Each takes up to four segments of memory. If zero,
	// 32.
	Runs int
	// TTL is how long an object is fresh if its source does not say. If zero, one hour; if negative, it never is.
	TTL time.Duration
	// Stale is how long an object that is not fresh any more may be served while no source answers. If zero, 24 hours; if
	// negative, not at all.
	Stale time.Duration
	// Grace is how long a run waits for another reader when the last one has left. If zero, 2 s.
	Grace time.Duration
	// Patience is how long an answer that broke off is tried to be continued while nothing comes. If zero, 15 s.
	Patience time.Duration
	// Rest is how long a source that fails is left alone, before it is tried with one request. If zero, 5 s.
	Rest time.Duration
	// Sources are the servers. Several with one Name are one origin.
	Sources []Source
	// Swarm gets blocks from peers, for sources of that kind. If nil, there can be none.
	Swarm dray.Getter
	// Guarded reports whether a root is not for everybody, so that it must not be served here. If nil, none is.
	Guarded func(cid.Cid) bool
	// Now is the clock by which objects are fresh. If nil, time.Now.
	Now func() time.Time
	// Log receives what an operator may want to know. If nil, nothing is logged.
	Log *slog.Logger
}

// Source is one server of an origin.
type Source struct {
	// Name is the origin's: letters, digits, dots, dashes and underscores, the first of them a letter or digit.
	Name string
	// Kind says what URL means.
	Kind Kind
	// URL is the prefix of what is asked for: a web server's, a gateway's (without /ipfs), or a bucket's endpoint.
	URL string
	// Priority orders the sources of an origin: those with the lowest are asked while they are healthy.
	Priority int
	// AllowPrivate allows addresses in private networks that URL does not spell out, after redirects too.
	AllowPrivate bool
	// TTL replaces Config.TTL, if it is not zero.
	TTL time.Duration
	// Token, if set, goes along as "Authorization: Bearer Token".
	Token string
	// Authorization passes an Authorization header of the client's on. Such requests are never answered from the cache.
	// If false, the header is taken to be for this host, and dropped.
	Authorization bool
	// Bucket says more about a source of the kind Bucketed.
	Bucket Bucket
	// Timeout is how long to wait for the headers of an answer. If zero, 30 s.
	Timeout time.Duration
	// TLS replaces Go's defaults, for authorities of one's own. If nil, there are none.
	TLS *tls.Config
	// Transport replaces the guarded client's. It is for tests. If nil, see package origin.
	Transport http.RoundTripper
}

// Kind tells sources apart.
type Kind uint8

// The kinds of sources.
const (
	// Web is a web server: objects are what it has below a URL.
	Web Kind = iota
	// Bucketed is a bucket that speaks S3.
	Bucketed
	// Gateway is an IPFS gateway, which is asked for blocks and not trusted.
	Gateway
	// Swarm is this node's peers.
	Swarm
)

// String names the kind.
func (k Kind) String() string { return [...]string{"url", "s3", "gateway", "swarm"}[k] }

// Bucket says where in a server that speaks S3 objects are, and who asks.
type Bucket struct {
	// Name is the bucket's.
	Name string
	// Prefix is what the keys of all objects begin with.
	Prefix string
	// Region is where it is. If empty, us-east-1.
	Region string
	// AccessKey and SecretKey, with SessionToken if there is one, say who asks. If AccessKey is empty, see File.
	AccessKey, SecretKey, SessionToken string
	// File is a file of credentials as AWS's tools write it, and Profile is which of its entries to use. If both are
	// empty, the environment is asked (AWS_ACCESS_KEY_ID and so on); if that says nothing, requests are anonymous.
	File, Profile string
}

// maxSegment is the largest segment: a leaf must fit into a block.
const maxSegment = dray.MaxBlockSize

// pageSize is what the sizes of leaves are rounded up to.
const pageSize = 4 << 10

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (c *Config) setDefaults() {
	if c.Size == 0 {
		c.Size = 10_000_000_000
	}
	if c.Segment == 0 {
		c.Segment = 1 << 20
	}
	if c.Objects == 0 {
		c.Objects = 1 << 16
	}
	if c.Runs == 0 {
		c.Runs = 32
	}
	if c.TTL == 0 {
		c.TTL = time.Hour
	}
	if c.Stale == 0 {
		c.Stale = 24 * time.Hour
	}
	if c.Grace == 0 {
		c.Grace = 2 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = 15 * time.Second
	}
	if c.Rest == 0 {
		c.Rest = 5 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Guarded == nil {
		c.Guarded = func(cid.Cid) bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (c *Config) check() error {
	switch {
	case c.Dir == "":
		return fmt.Errorf("edge: a Config needs a Dir")
	case c.Size < 0:
		return fmt.Errorf("edge: the size %d is negative", c.Size)
	case c.Segment < 0 || c.Segment > maxSegment:
		return fmt.Errorf("edge: a segment of %d bytes is not between 1 and %d", c.Segment, maxSegment)
	}
	return nil
}

// Check says what is wrong with a source.
func (s *Source) Check() error {
	if !nameForm.MatchString(s.Name) {
		return fmt.Errorf("origin %q: a name is letters, digits, dots, dashes and underscores, at most 64", s.Name)
	}
	if s.Kind == Swarm {
		return nil
	}
	_, err := s.parse()
	if err == nil && s.Kind == Bucketed && (s.Bucket.Name == "" || strings.Contains(s.Bucket.Name, "/")) {
		err = fmt.Errorf("origin %s: %q is no name of a bucket", s.Name, s.Bucket.Name)
	}
	return err
}

func (s *Source) parse() (*url.URL, error) {
	u, err := url.Parse(s.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("origin %s: %w", s.Name, err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("origin %s: %q is no URL of a web server; right is one like https://example.org/models",
			s.Name, s.URL)
	case u.User != nil:
		return nil, fmt.Errorf("origin %s: the URL contains a user name; say who asks with token, or with keys of a bucket",
			s.Name)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("origin %s: the URL is a prefix, so it ends before ? and #", s.Name)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(u.RawPath, "/")
	return u, nil
}
