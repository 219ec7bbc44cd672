package gateway

import (
	"sync"

	"github.com/ipfs/go-cid"

	"dray/unixfs"
)

// typeKey is what the Content-Type of a file depends on: the file, and the end of the name that it is asked for by.
type typeKey struct {
	c   cid.Cid
	ext string
}

// typeCache remembers the Content-Types of recent files, so that a range does not cost a look at the beginning. It is
// bounded by forgetting everything when it is full, which is rare and cheap. It is safe for concurrent use.
type typeCache struct {
	mu    sync.Mutex
	types map[typeKey]string
}

const maxTypes = 4096

func (t *typeCache) get(k typeKey) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.types[k]
}

func (t *typeCache) put(k typeKey, typ string) {
	if !k.c.Defined() || typ == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.types == nil || len(t.types) >= maxTypes {
		t.types = make(map[typeKey]string)
	}
	t.types[k] = typ
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
