package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	rules "dray/access"
	"dray/node"
	"dray/store/disk"
)

// A home's door: who may have what of it. Two files in the home say so: one of members, which people write, and one of rules,
// which holds the secrets of private roots and which only commands write.

const (
	membersName = "members"
	bookName    = "access.json"
	membersPoll = time.Second
)

// The values of --admission.
const (
	admitOpen    = "open"
	admitMembers = "members"
)

// door belongs to a house.
type door struct {
	home  string
	store *disk.Store
	only  bool // nobody but members is served

	// What a crash left of adding something in private, and the name that it has in the book: it is nobody's, until it lies
	// under a root, or is collected and the home opened again.
	loose []cid.Cid
	left  cid.Cid

	mu      sync.Mutex // guards what follows, and is held while it is applied, so that the last change applies last
	book    *rules.Book
	members *rules.Members
	node    *node.Node
}

// openDoor reads what a home says. A book that cannot be read is an error: without it, what is private would be open. So are
// members that cannot be read, if it matters who is one.
func openDoor(h *house, a access) (*door, error) {
	d := &door{home: h.home, store: h.store, only: a.admission == admitMembers}
	text, err := os.ReadFile(d.bookPath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.book = new(rules.Book)
	case err != nil:
		return nil, err
	default:
		if d.book, err = rules.ParseBook(text); err != nil {
			return nil, fmt.Errorf("%s, which says what is private, cannot be read: %w; restore it, or remove it and with it "+
				"the privacy of all that it names", d.bookPath(), err)
		}
	}
	if a.network {
		if err := d.settle(context.Background()); err != nil {
			return nil, err
		}
	}
	d.members, err = readMembers(h.home)
	switch {
	case err != nil && len(a.listen) > 0:
		return nil, err
	case err != nil:
		h.env.tell("warning: %s", oneLine(err))
	case d.only && len(d.members.List()) == 0:
		return nil, usagef("there are no members yet, so nobody would be served; name some with `dray members add PEER`")
	}
	return d, nil
}

// settle finds what was being added in private when a home was left without warning: what lies under no root.
func (d *door) settle(ctx context.Context) error {
	names := d.book.Unfinished()
	if len(names) == 0 {
		return nil
	}
	roots, err := d.store.Roots(ctx)
	if err != nil {
		return err
	}
	rooted := make(map[string]bool)
	enter := func(c cid.Cid) bool {
		key := dray.HashKey(c)
		again := rooted[key]
		rooted[key] = true
		return !again
	}
	w := walking{
		stat:  func(c cid.Cid) (int64, error) { return d.store.Stat(ctx, c) },
		get:   func(c cid.Cid) (dray.Block, error) { return d.store.Get(ctx, c) },
		enter: enter,
	}
	for _, r := range roots {
		if err := w.over(r.CID); err != nil {
			return err
		}
	}
	for s, err := range d.store.All(ctx) {
		if err != nil {
			return err
		}
		if enter(s.CID) {
			d.loose = append(d.loose, s.CID)
		}
	}
	if len(d.loose) > 0 {
		d.left, names = names[0], names[1:]
	}
	return d.edit(ctx, func(b *rules.Book) error {
		for _, name := range names {
			b.End(name)
		}
		return nil
	})
}

func (d *door) bookPath() string { return filepath.Join(d.home, bookName) }

func membersPath(home string) string { return filepath.Join(home, membersName) }

// readMembers reads a home's members; no file is no members.
func readMembers(home string) (*rules.Members, error) {
	text, err := membersText(home)
	if err != nil {
		return nil, err
	}
	m, err := rules.ParseMembers(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", membersPath(home), err)
	}
	return m, nil
}

func membersText(home string) ([]byte, error) {
	info, err := os.Stat(membersPath(home))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > rules.MaxMembersFile:
		return nil, fmt.Errorf("%s has %d bytes, more than %d", membersPath(home), info.Size(), rules.MaxMembersFile)
	}
	return os.ReadFile(membersPath(home))
}

// current returns what holds now. The caller holds mu.
func (d *door) current(ctx context.Context) (node.Access, error) {
	a := node.Access{Book: d.book.Clone(), Members: d.members, MembersOnly: d.only, Loose: d.loose, LooseUnder: d.left}
	if d.book.Len() == 0 {
		return a, nil
	}
	roots, err := d.store.Roots(ctx)
	for _, r := range roots {
		if _, closed := d.book.Rule(r.CID); !closed {
			a.Open = append(a.Open, r.CID)
		}
	}
	return a, err
}

// apply makes the node go by what holds now. The caller holds mu.
func (d *door) apply(ctx context.Context) error {
	if d.node == nil {
		return nil
	}
	a, err := d.current(ctx)
	if err != nil {
		return err
	}
	return d.node.SetAccess(ctx, a)
}

// rootsChanged has what lies under which root worked out anew, if that matters.
func (d *door) rootsChanged(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.book.Len() == 0 {
		return nil
	}
	return d.apply(ctx)
}

// edit changes the rules: first in the home, so that a crash opens nothing, and then for the node.
func (d *door) edit(ctx context.Context, change func(*rules.Book) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.book.Clone()
	if err := change(b); err != nil {
		return err
	}
	was, err := d.book.Encode()
	if err != nil {
		return err
	}
	text, err := b.Encode()
	if err != nil || string(was) == string(text) {
		return err
	}
	if err := replaceFile(d.bookPath(), text, 0o600); err != nil {
		return err
	}
	d.book = b
	return d.apply(ctx)
}

// rule returns the rule of a root.
func (d *door) rule(root cid.Cid) (rules.Rule, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.book.Rule(root)
	return r, ok
}

// keep remembers the capability of a private target before anything of it is here, so that it is private here too.
func (h *house) keep(ctx context.Context, t target) error {
	if t.secret.IsZero() {
		return nil
	}
	if _, closed := h.door.rule(t.root); !closed {
		if _, err := h.store.Root(ctx, t.root); err == nil {
			return nil // it is open here, and has been before
		}
	}
	return h.door.edit(ctx, func(b *rules.Book) error {
		return b.Give(t.root, rules.Capability{Secret: t.secret, Label: "got by a ticket", Made: time.Now()})
	})
}

// nest remembers that a target is a part of a root that is not open, which its path led to.
func (h *house) nest(ctx context.Context, part, root cid.Cid) error {
	if part == root {
		return nil
	}
	return h.door.edit(ctx, func(b *rules.Book) error { b.Nest(part, root); return nil })
}

// replaceFile writes a file so that there is the old one or the new one, whole, whatever happens.
func replaceFile(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// watchMembers reads the members again when their file has changed, and on SIGHUP. One that is malformed changes nothing.
func (h *house) watchMembers() (end func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	last := stampOf(membersPath(h.home))
	ended := watch(func(done <-chan struct{}) {
		t := time.NewTicker(membersPoll)
		defer t.Stop()
		for {
			told := false
			select {
			case <-done:
				return
			case <-hup:
				told = true
			case <-t.C:
			}
			now := stampOf(membersPath(h.home))
			if told || now != last {
				last = now
				h.readMembersAgain()
			}
		}
	})
	return func() {
		signal.Stop(hup)
		ended()
	}
}

func (h *house) readMembersAgain() {
	m, err := readMembers(h.home)
	if err == nil {
		h.door.mu.Lock()
		defer h.door.mu.Unlock()
		h.door.members = m
		err = h.door.apply(context.Background())
	}
	if err != nil {
		fmt.Fprintf(h.env.stderr, "dray: %s; the members of before stay\n", oneLine(err))
		return
	}
	h.env.tell("%s now", plural(int64(len(m.List())), "member"))
}

// stamp tells versions of a file apart.
type stamp struct {
	size  int64
	mtime time.Time
	inode uint64
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{size: -1}
	}
	s := stamp{size: info.Size(), mtime: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// accessOf says in a word or two who may have a root.
func accessOf(r rules.Rule, closed bool) string {
	switch {
	case !closed:
		return "open"
	case r.Under.Defined():
		return "part of a private root"
	case r.Members && len(r.Capabilities) > 0:
		return "members and " + plural(int64(len(r.Capabilities)), "ticket")
	case r.Members:
		return "members"
	case len(r.Capabilities) > 0:
		return "private, " + plural(int64(len(r.Capabilities)), "ticket")
	}
	return "private, no tickets"
}

// errOpen is why something that is open cannot be taken back.
func errOpen(root cid.Cid) error {
	return &dray.Error{Op: "unshare", CID: root, Err: fmt.Errorf("%w: it is no root that is private here; "+
		"`dray ls` lists what is, and `dray share --private PATH` makes one", dray.ErrNotFound)}
}
