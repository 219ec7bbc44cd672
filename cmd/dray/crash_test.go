package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"dray"
	rules "dray/access"
	"dray/node"
	"dray/unixfs"
)

// What was being added in private when the process ended has no rule and no root; it is nobody's all the same, until it is
// shared, whichever way.
func TestPrivateAddCutShort(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret.bin")
	data := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(name string) *house { return testHouse(t, filepath.Join(dir, name), onLoopback()) }
	shut := func(h *house) {
		t.Helper()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	get := func(h *house, name, root string) error {
		t.Helper()
		g := open(name)
		defer shut(g)
		_, err := getTarget(t.Context(), g, getRequest{
			targetRequest: targetRequest{Root: root, Peers: h.node.Addrs()}, Output: filepath.Join(dir, name+".bin"),
		}, pipes[getNote]{note: func(getNote) {}})
		return err
	}

	// As addPath does, up to the moment before the root has its rule.
	h := open("a")
	q := addRequest{Path: path, Profile: "native", Share: sharePrivate, Copy: true}
	pending, err := q.pending()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.door.edit(t.Context(), func(b *rules.Book) error { b.Begin(pending); return nil }); err != nil {
		t.Fatal(err)
	}
	added, err := h.node.Add(t.Context(), path, node.AddConfig{Guard: pending, Profile: unixfs.Native(), Copy: true})
	if err != nil {
		t.Fatal(err)
	}
	root := added.Root.String()
	shut(h)

	h = open("a")
	if len(h.door.loose) == 0 || h.door.left != pending {
		t.Errorf("%d blocks are under no root, under %v", len(h.door.loose), h.door.left)
	}
	if err := get(h, "b", root); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("a stranger: %v", err)
	}
	q.Share = ""
	if _, err := addPath(t.Context(), h, q, pipes[addNote]{note: func(addNote) {}}); err != nil {
		t.Fatal(err)
	}
	if err := get(h, "c", root); err != nil {
		t.Errorf("after it was added for everybody: %v", err)
	}
	shut(h)

	h = open("a")
	defer shut(h)
	if names := h.door.book.Unfinished(); len(names) != 0 || h.door.left.Defined() {
		t.Errorf("%v are still unfinished", names)
	}
	if _, err := h.node.Store().Get(t.Context(), added.Root); err != nil {
		t.Error(err)
	}
}
