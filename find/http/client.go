package delegated

import (
	"bufio"
	"bytes"
	"cmp"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/ipfs/go-cid"

	"dray"
	"dray/origin"
	"dray/transport"
)

// ClientConfig says which router is asked, and how. URL is required.
type ClientConfig struct {
	// URL is the router's: http or https, a host and perhaps a path before /routing/v1.
	URL string
	// Timeout is how long an answer may take from beginning to end. If zero, 20 seconds.
	Timeout time.Duration
	// Bytes is how long an answer may be. If zero, 1 MiB; what comes after is not read.
	Bytes int64
	// Records is how many records of an answer are read. If zero, 100.
	Records int
	// Cached is how many answers are kept for as long as the router allows, at most an hour. If zero, 1,024; if negative, none.
	Cached int
	// Failures is after how many failures in a row the router is left alone for Pause. If zero, 5 and 30 seconds.
	Failures uint
	Pause    time.Duration
	// UserAgent names the program to the router. If empty, "dray".
	UserAgent string
}

// Client asks a router. It is a [transport.Finder] and safe for concurrent use.
type Client struct {
	cfg    ClientConfig
	url    *url.URL
	client *http.Client
	fuse   circuitbreaker.CircuitBreaker[any]

	mu    sync.Mutex // guards what follows
	kept  map[string]*list.Element
	order *list.List // of *answer, the latest used in front
}

// answer is what the router said once.
type answer struct {
	key     string
	until   time.Time
	records []Record
}

// ErrResting means that the router failed so often that it is left alone for a while.
var ErrResting = errors.New("the router failed too often and is left alone for a while")

const longestKept = time.Hour

// NewClient returns a client of a router. The error says what is wrong with its URL.
func NewClient(cfg ClientConfig) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "") {
		err = errors.New("right is one with http or https and no query, such as https://router.example")
	}
	if err != nil {
		return nil, fmt.Errorf("%.200q is no URL of a router: %w", cfg.URL, err)
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), strings.TrimRight(prefix, "/")) + prefix
	cfg.Timeout = cmp.Or(cfg.Timeout, 20*time.Second)
	cfg.Bytes, cfg.Records, cfg.Cached = cmp.Or(cfg.Bytes, 1<<20), cmp.Or(cfg.Records, 100), cmp.Or(cfg.Cached, 1024)
	cfg.Failures, cfg.Pause = cmp.Or(cfg.Failures, 5), cmp.Or(cfg.Pause, 30*time.Second)
	return &Client{
		cfg: cfg, url: u, kept: make(map[string]*list.Element), order: list.New(),
		client: origin.NewClient(origin.Config{
			URL: u, Timeout: 2 * cfg.Timeout, Stall: 2 * cfg.Timeout, MaxBody: cfg.Bytes, Connections: 8, UserAgent: cfg.UserAgent,
		}),
		fuse: circuitbreaker.NewBuilder[any]().WithFailureThreshold(cfg.Failures).WithDelay(cfg.Pause).Build(),
	}, nil
}

// Find implements [transport.Finder]. Only providers are returned that may speak Bitswap.
func (c *Client) Find(ctx context.Context, x cid.Cid, found func(transport.Peer)) error {
	return c.Providers(ctx, x, func(r Record) { found(transport.Peer{ID: r.ID, Addrs: r.Addrs}) })
}

// wanted are the protocols by which this program can get something.
var wanted = filter{protocols: []string{unknown, Bitswap}}

// Providers calls each with the providers of a CID that may speak Bitswap, as they arrive. None is no error. The error is ctx's,
// [ErrResting], [dray.ErrTimeout], or says what the router did wrong.
func (c *Client) Providers(ctx context.Context, x cid.Cid, each func(Record)) error {
	v1 := cid.NewCidV1(x.Type(), x.Hash())
	return c.records(ctx, "providers/"+v1.String(), "Providers", each)
}

// Peers calls each with what the router knows of a peer's addresses, as Providers does.
func (c *Client) Peers(ctx context.Context, id dray.PeerID, each func(Record)) error {
	return c.records(ctx, "peers/"+cid.NewCidV1(keyCodec, []byte(id)).String(), "Peers", each)
}

// records gets a list of records: the one that is kept, or the router's.
func (c *Client) records(ctx context.Context, path, field string, each func(Record)) error {
	if list, ok := c.recall(path); ok {
		for _, r := range list {
			each(r)
		}
		return nil
	}
	if !c.fuse.TryAcquirePermit() {
		return ErrResting
	}
	within, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	err := c.get(within, path, field, each)
	if err != nil && within.Err() != nil {
		err = fmt.Errorf("%w: the router has not answered within %v", dray.ErrTimeout, c.cfg.Timeout)
	}
	switch {
	case err == nil:
		c.fuse.RecordSuccess()
	case ctx.Err() != nil:
		c.fuse.RecordSuccess() // whoever asked lost interest: the router did nothing wrong
		return ctx.Err()
	default:
		c.fuse.RecordFailure()
	}
	return err
}

func (c *Client) get(ctx context.Context, path, field string, each func(Record)) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet,
		c.url.String()+path+"?filter-protocols="+strings.Join(wanted.protocols, ","), nil)
	if err != nil {
		return err
	}
	q.Header.Set("Accept", typeStream+", "+typeJSON+";q=0.9")
	resp, err := c.client.Do(q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got []Record
	take := func(text []byte) error {
		r, err := parseRecord(text)
		if errors.Is(err, errSchema) {
			return nil // of a kind that is of no use here
		}
		if err != nil {
			return err
		}
		if r, ok := wanted.apply(r); ok && len(got) < c.cfg.Records {
			got = append(got, r)
			each(r)
		}
		return nil
	}
	switch resp.StatusCode {
	case http.StatusOK:
		err = readRecords(resp, field, c.cfg.Bytes, take)
	case http.StatusNotFound: // how routers before IPIP-513 say that there are none
		_, err = io.CopyN(io.Discard, resp.Body, 4096)
		if errors.Is(err, io.EOF) {
			err = nil
		}
	default:
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("the router says %s: %q", resp.Status, strings.TrimSpace(string(text)))
	}
	if err == nil {
		c.keep(path, resp.Header, got)
	}
	return err
}

// readRecords reads an answer in either of its two forms.
func readRecords(resp *http.Response, field string, most int64, take func([]byte) error) error {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("the router's answer has no usable type: %w", err)
	}
	switch kind {
	case typeStream:
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, int(min(most, 256<<10)))
		for lines.Scan() {
			if lines.Err() != nil {
				break // it is the begin of a line that was cut off
			}
			if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
				if err := take(line); err != nil {
					return err
				}
			}
		}
		return lines.Err()
	case typeJSON:
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		var list map[string]json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil {
			return err
		}
		var records []json.RawMessage
		if text := list[field]; text != nil {
			if err := json.Unmarshal(text, &records); err != nil {
				return err
			}
		}
		for _, r := range records {
			if err := take(r); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("the router's answer is of type %.100q; right is %s or %s", kind, typeJSON, typeStream)
}

// recall returns an answer that may still be used.
func (c *Client) recall(path string) ([]Record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.kept[path]
	if e == nil {
		return nil, false
	}
	a := e.Value.(*answer)
	if !time.Now().Before(a.until) {
		c.order.Remove(e)
		delete(c.kept, path)
		return nil, false
	}
	c.order.MoveToFront(e)
	return a.records, true
}

// keep remembers an answer for as long as its header allows.
func (c *Client) keep(path string, h http.Header, records []Record) {
	age := freshness(h)
	if age <= 0 || c.cfg.Cached < 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.kept[path]; old != nil {
		c.order.Remove(old)
	}
	c.kept[path] = c.order.PushFront(&answer{key: path, until: time.Now().Add(age), records: slices.Clip(records)})
	for c.order.Len() > c.cfg.Cached {
		delete(c.kept, c.order.Remove(c.order.Back()).(*answer).key)
	}
}

// freshness is how long an answer may be used (RFC 9111, section 4.2.1): its max-age less its Age.
func freshness(h http.Header) time.Duration {
	var seconds int64
	for _, d := range strings.Split(h.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(d)), "=")
		switch name {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			seconds, _ = strconv.ParseInt(strings.Trim(value, `"`), 10, 32)
		}
	}
	age, _ := strconv.ParseInt(h.Get("Age"), 10, 32)
	return min(time.Duration(seconds-max(age, 0))*time.Second, longestKept)
}
