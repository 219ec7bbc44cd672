package mirror

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray/names"
	"dray/unixfs"
)

// notes are a Mirror's files: what commits hold, what branches and tags meant when, and which leaves content has. They are
// written so that what is there after a crash is whole or is not taken for whole.
type notes struct {
	dir, upstream string

	mu     sync.Mutex
	recent map[string]*known // commits that were read, by the path of their note
}

const mostRecent = 64 // commits that are kept in memory

func openNotes(dir, upstream string) (*notes, error) {
	for _, d := range []string{"commits", "revisions", "leaves"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	return &notes{dir: dir, upstream: upstream, recent: make(map[string]*known)}, nil
}

// commitNote is a commit as it is written, and as trusted peers tell each other.
type commitNote struct {
	Kind       string     `json:"kind"`
	Repo       string     `json:"repo"`
	ID         string     `json:"id"`
	Time       time.Time  `json:"time"`
	Restricted bool       `json:"restricted,omitempty"`
	Files      []fileNote `json:"files"`
}

type fileNote struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	Blob   string `json:"blob"`
	SHA256 string `json:"sha256,omitempty"`
}

type revisionNote struct {
	Commit string    `json:"commit"`
	Asked  time.Time `json:"asked"`
}

func noteOf(k *known) commitNote {
	n := commitNote{Kind: k.Repo.Kind.Plural(), Repo: k.Repo.Name, ID: k.ID, Time: k.Time, Restricted: k.Restricted}
	for _, f := range k.Files {
		n.Files = append(n.Files, fileNote{f.Path, f.Size, f.Blob, f.SHA256})
	}
	return n
}

// known returns what a note says, if it is about that repository and makes sense.
func (n *commitNote) known(repo names.Repo) (*known, error) {
	if n.Kind != repo.Kind.Plural() || n.Repo != repo.Name || !names.IsCommit(n.ID) || len(n.Files) > mostFiles {
		return nil, errors.New("a note about another commit")
	}
	k := &known{Commit: names.Commit{Repo: repo, ID: n.ID, Time: n.Time}, Restricted: n.Restricted}
	for _, f := range n.Files {
		file := names.File{Path: f.Path, Size: f.Size, Blob: f.Blob, SHA256: f.SHA256}
		if err := file.Check(); err != nil {
			return nil, err
		}
		k.Files = append(k.Files, file)
	}
	var err error
	k.Files, err = sorted(k.Files)
	return k, err
}

func (n *notes) commitPath(repo names.Repo, id string) string {
	return filepath.Join(n.dir, "commits", digest(n.upstream, repo.Kind.Plural(), repo.Name, id))
}

func (n *notes) revisionPath(repo names.Repo, revision string) string {
	return filepath.Join(n.dir, "revisions", digest(n.upstream, repo.Kind.Plural(), repo.Name, revision))
}

// commit returns what is noted of a revision, or nil, and whether that is no older than it may be.
func (n *notes) commit(repo names.Repo, revision string, old time.Duration) (k *known, fresh bool) {
	id := revision
	fresh = names.IsCommit(revision)
	if !fresh {
		var r revisionNote
		if readNote(n.revisionPath(repo, revision), &r) != nil {
			return nil, false
		}
		age := time.Since(r.Asked)
		id, fresh = r.Commit, age >= 0 && age < old
	}
	path := n.commitPath(repo, id)
	n.mu.Lock()
	k = n.recent[path]
	n.mu.Unlock()
	if k != nil {
		return k, fresh
	}
	var c commitNote
	if readNote(path, &c) != nil {
		return nil, false
	}
	k, err := c.known(repo)
	if err != nil || k.ID != id {
		return nil, false
	}
	n.remember(path, k)
	return k, fresh
}

// remember keeps a commit in memory, in place of any other when there are too many.
func (n *notes) remember(path string, k *known) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for old := range n.recent {
		if len(n.recent) < mostRecent {
			break
		}
		delete(n.recent, old)
	}
	n.recent[path] = k
}

func (n *notes) setCommit(k *known, revision string) error {
	n.remember(n.commitPath(k.Repo, k.ID), k)
	if err := writeNote(n.commitPath(k.Repo, k.ID), noteOf(k)); err != nil || revision == k.ID {
		return err
	}
	return writeNote(n.revisionPath(k.Repo, revision), revisionNote{Commit: k.ID, Asked: time.Now()})
}

func readNote(path string, to any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

func writeNote(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// The leaves of content are noted as lines of its feed, as they come: an entry each, and a root when it is all here.

func (n *notes) leavesPath(key string) string { return filepath.Join(n.dir, "leaves", key) }

// root returns the root of content that was all here at a time.
func (n *notes) root(key string) (unixfs.Ref, bool) {
	f, err := os.Open(n.leavesPath(key))
	if err != nil {
		return unixfs.Ref{}, false
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return unixfs.Ref{}, false
	}
	tail := make([]byte, min(size, 1024))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		return unixfs.Ref{}, false
	}
	tail, ok := bytes.CutSuffix(tail, []byte("\n"))
	if !ok {
		return unixfs.Ref{}, false
	}
	var l feedLine
	if json.Unmarshal(tail[bytes.LastIndexByte(tail, '\n')+1:], &l) != nil || l.Root == "" {
		return unixfs.Ref{}, false
	}
	root, err := cid.Decode(l.Root)
	return unixfs.Ref{CID: root, Size: l.Size, Tsize: l.Tsize}, err == nil
}

// leaves calls each with the entries that are noted of content, up to the first that makes no sense.
func (n *notes) leaves(key string, each func(entry) bool) error {
	f, err := os.Open(n.leavesPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		var l feedLine
		text, err := r.ReadSlice('\n')
		if err != nil || json.Unmarshal(text, &l) != nil {
			return nil // it was broken off there
		}
		if e, ok := l.entry(); ok && !each(e) {
			return nil
		}
	}
}

// leafNote adds to what is noted of content. It is used by one goroutine at a time.
type leafNote struct {
	f    *os.File
	line []byte
}

// rewriteLeaves begins the note of content anew with what is known.
func (n *notes) rewriteLeaves(key string, list ...[]entry) (*leafNote, error) {
	f, err := os.Create(n.leavesPath(key))
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	l := &leafNote{f: f}
	for _, entries := range list {
		for _, e := range entries {
			if l.line, err = appendLine(l.line[:0], lineOf(e)); err == nil {
				_, err = w.Write(l.line)
			}
		}
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		return nil, errors.Join(fmt.Errorf("note of leaves: %w", err), f.Close())
	}
	return l, nil
}

func (l *leafNote) add(line feedLine) (err error) {
	if l.line, err = appendLine(l.line[:0], line); err == nil {
		_, err = l.f.Write(l.line)
	}
	return err
}

func (l *leafNote) close() error { return l.f.Close() }
