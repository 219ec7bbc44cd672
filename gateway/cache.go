package gateway

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray/unixfs"
)

// known is how a path was answered: what it names does not change, and neither does what is said of it.
type known struct {
	file   cid.Cid
	way    []cid.Cid // the blocks that say so
	header http.Header
}

// knownCache remembers the answers to recent paths of files. It is bounded by forgetting everything when it is full, which is
// rare and cheap. It is safe for concurrent use.
type knownCache struct {
	mu    sync.Mutex
	paths map[string]known
}

const maxKnown = 4096

func (t *knownCache) get(path string) (known, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.paths[path]
	return k, ok
}

func (t *knownCache) put(path string, k known) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paths == nil || len(t.paths) >= maxKnown {
		t.paths = make(map[string]known)
	}
	t.paths[path] = k
}

// again sends what a path names if it was answered before, and is public still.
func (g *Gateway) again(out *writer, q *request) bool {
	if !q.ask.plain() {
		return false
	}
	k, ok := g.known.get(q.ask.r.URL.Path)
	if !ok || !g.cfg.Public(k.file) || slices.ContainsFunc(k.way, func(c cid.Cid) bool { return !g.cfg.Public(c) }) {
		return false
	}
	f, err := q.openFile(k.file)
	if err != nil {
		return false // whoever looks at everything says what is wrong
	}
	q.body, out.header = f, maps.Clone(k.header)
	http.ServeContent(out, q.ask.forContent(), "", time.Time{}, f)
	return true
}

// nodeCache remembers interior nodes of recent files and directories, so that a small part of a file does not cost reading the
// list of all its leaves. It is bounded by their size, and forgets what was kept first; one that is still used is kept again.
// It is safe for concurrent use.
type nodeCache struct {
	mu    sync.Mutex
	nodes map[cid.Cid]unixfs.Node
	order []cid.Cid // oldest first; each of nodes once
	cost  int
}

const (
	maxNodes   = 8 << 20 // bytes, about
	maxOneNode = 1 << 20
	linkCost   = 160 // of a link beside its name
)

func costOf(n *unixfs.Node) int {
	cost := linkCost + len(n.Data)
	for i := range n.Links {
		cost += linkCost + len(n.Links[i].Name)
	}
	return cost
}

func (t *nodeCache) get(c cid.Cid) (unixfs.Node, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.nodes[c]
	return n, ok
}

func (t *nodeCache) put(c cid.Cid, n unixfs.Node) {
	cost := costOf(&n)
	if cost > maxOneNode {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, twice := t.nodes[c]; twice {
		return
	}
	if t.nodes == nil {
		t.nodes = make(map[cid.Cid]unixfs.Node)
	}
	t.nodes[c] = n
	t.order = append(t.order, c)
	for t.cost += cost; t.cost > maxNodes; t.order = t.order[1:] {
		old := t.nodes[t.order[0]]
		t.cost -= costOf(&old)
		delete(t.nodes, t.order[0])
	}
}

// Node implements [unixfs.NodeCache]: what is not public is not remembered either.
func (q *request) Node(c cid.Cid) (unixfs.Node, bool) {
	n, ok := q.g.nodes.get(c)
	if !ok || !q.g.cfg.Public(c) {
		return unixfs.Node{}, false
	}
	return n, true
}

// Keep implements [unixfs.NodeCache].
func (q *request) Keep(c cid.Cid, n unixfs.Node) { q.g.nodes.put(c, n) }
