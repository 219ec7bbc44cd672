package mirror

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/names"
	"dray/transport"
	"dray/unixfs"
)

// The protocol is lines of JSON: one question, then the answer's lines. A state and a commit are one line; a feed goes on, and
// meanwhile the follower may say with lines of its own which bytes it needs soon.

const (
	mostQuestion = 16 << 10 // bytes of a line
	mostCommit   = 64 << 20
	answerWithin = 10 * time.Second // for whatever is not a feed
)

// What is asked.
const (
	askState  = "state"
	askFeed   = "feed"
	askCommit = "commit"
)

// question is the first line of a stream.
type question struct {
	Ask string `json:"ask"`
	// Upstream names the upstream, so that nodes with another one are not taken for the same.
	Upstream string `json:"upstream"`
	// Key names content, for a state.
	Key string `json:"key,omitempty"`
	// Kind, Repo, Commit and Path say which file, for a feed; for a commit, Commit is any revision.
	Kind   string `json:"kind,omitempty"`
	Repo   string `json:"repo,omitempty"`
	Commit string `json:"commit,omitempty"`
	Path   string `json:"path,omitempty"`
	// Front is how many bytes from the beginning need not be told, for a feed.
	Front int64 `json:"front,omitempty"`
}

// stateLine answers a question for a state.
type stateLine struct {
	Stage  stage    `json:"stage"`
	Front  int64    `json:"front,omitempty"`
	Path   []string `json:"via,omitempty"`
	Unable bool     `json:"unable,omitempty"`
	Error  string   `json:"error,omitempty"`
}

// feedLine is a line of a feed: a header, a leaf, a sign of life (empty), the root, or why there is no more.
type feedLine struct {
	// Via is the header: whom the bytes come through.
	Via []string `json:"via,omitempty"`
	// Hope is through whom they may come, while nobody feeds who says this.
	Hope []string `json:"hope,omitempty"`
	// With are who else is fed now; it comes again when that changes.
	With []string `json:"with,omitempty"`
	// Leaf is the content's stretch from Begin to End, which lies at an Edge of its section.
	Begin int64  `json:"b,omitempty"`
	End   int64  `json:"e,omitempty"`
	Edge  edge   `json:"x,omitempty"`
	Leaf  string `json:"c,omitempty"`
	// Root is what all are under; Size and Tsize are its measures.
	Root  string `json:"root,omitempty"`
	Size  int64  `json:"size,omitempty"`
	Tsize int64  `json:"tsize,omitempty"`
	Error string `json:"error,omitempty"`
}

// needLine is what a follower says: it needs Want bytes from Need on before others.
type needLine struct {
	Need int64 `json:"need"`
	Want int64 `json:"want"`
}

// profile is how files are cut, so that everybody gets the same leaves, which are those of `dray add`.
var profile = unixfs.Native()

var leafPrefix = profile.LeafPrefix()

func lineOf(e entry) feedLine {
	return feedLine{Begin: e.begin, End: e.end, Edge: e.edge, Leaf: e.leaf.String()}
}

// entry returns the leaf that a line tells, if it does.
func (l *feedLine) entry() (entry, bool) {
	if l.Leaf == "" {
		return entry{}, false
	}
	c, err := cid.Decode(l.Leaf)
	ok := err == nil && c.Prefix() == leafPrefix && l.Edge&^edges == 0
	if !ok || l.Begin < 0 || l.End <= l.Begin || l.End-l.Begin > profile.ChunkSize {
		return entry{}, false
	}
	return entry{begin: l.Begin, end: l.End, edge: l.Edge, leaf: c}, true
}

func appendLine(dst []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(append(dst, text...), '\n'), err
}

// writeLine writes a line within a time.
func writeLine(s transport.Stream, within time.Duration, v any) error {
	line, err := appendLine(nil, v)
	if err != nil {
		return err
	}
	if err := s.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	_, err = s.Write(line)
	return err
}

// readLine reads a line of at most so many bytes.
func readLine(r *bufio.Reader, most int, to any) error {
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		if len(text) > most {
			return fmt.Errorf("a line of more than %d bytes", most)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) && len(text) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return json.Unmarshal(text, to)
}

// call asks a peer, and returns what reads its answer. The stream is reset when ctx ends; the caller calls end.
func (m *Mirror) call(ctx context.Context, peer dray.PeerID, q question) (s transport.Stream, r *bufio.Reader, end func(), err error) {
	q.Upstream = m.id
	if s, err = m.cfg.Swarm.Call(ctx, peer); err != nil {
		return nil, nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	end = func() {
		stop()
		s.Reset()
	}
	if err = writeLine(s, answerWithin, q); err != nil {
		end()
		return nil, nil, nil, err
	}
	return s, bufio.NewReader(s), end, nil
}

func (q *question) target() (repo names.Repo, err error) {
	repo.Name = q.Repo
	var ok bool
	if repo.Kind, ok = names.ParseKind(q.Kind); !ok || repo.Kind.Plural() != q.Kind {
		return repo, fmt.Errorf("there is no kind %q", clip(q.Kind, 40))
	}
	return repo, checkNames(repo, q.Commit)
}

func idsOf(list []string) (ids []dray.PeerID) {
	for _, s := range list {
		if id, err := dray.ParsePeerID(s); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func textsOf(ids []dray.PeerID) []string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return texts
}
