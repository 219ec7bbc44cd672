package access

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ipfs/go-cid"

	"dray"
)

// The bounds of a book.
const (
	// MaxBook is how many bytes the written form of a [Book] may have.
	MaxBook = 64 << 20
	// MaxCapabilities is how many capabilities of one root count at a time.
	MaxCapabilities = 1 << 14
	// MaxLabel is how many bytes the label of a capability may have.
	MaxLabel = 100
)

// Capability is a secret that lets whoever has it get a root.
type Capability struct {
	// Secret is what the proof is made with.
	Secret Secret
	// Label is what people call it, or empty.
	Label string
	// Made is when it was given out, or came.
	Made time.Time
}

// Rule says who may have a root.
type Rule struct {
	// Root is the root.
	Root cid.Cid
	// Under, if set, is another root that this one was got as a part of: who may have that may have this, and nobody else. Then
	// nothing else is set.
	Under cid.Cid
	// Members says that members may.
	Members bool
	// Capabilities are the secrets of which one has to be proven otherwise, oldest first. With none, and without Members,
	// nobody may have the root.
	Capabilities []Capability
	// Unfinished says that Root is no root but a name, for what is being added in private and has no root yet, or never got one
	// because of a crash. Then nothing else is set.
	Unfinished bool
}

// Book is what this host remembers about who may have what: the rules. The zero Book has none; a root without a rule is
// open. It is not safe for concurrent use.
type Book struct {
	rules map[string]Rule // by the root's multihash
}

// Rule returns the rule of a root, and whether there is one. The rule must not be changed.
func (b *Book) Rule(root cid.Cid) (Rule, bool) {
	r, ok := b.rules[dray.HashKey(root)]
	return r, ok
}

// Rules returns all rules, in the order of their roots.
func (b *Book) Rules() []Rule {
	out := make([]Rule, 0, len(b.rules))
	for _, r := range b.rules {
		out = append(out, r)
	}
	slices.SortFunc(out, func(x, y Rule) int { return cmp.Compare(dray.HashKey(x.Root), dray.HashKey(y.Root)) })
	return out
}

// Len returns how many rules there are.
func (b *Book) Len() int { return len(b.rules) }

// Clone returns a copy that shares nothing that changes.
func (b *Book) Clone() *Book {
	c := new(Book)
	for _, r := range b.rules {
		r.Capabilities = slices.Clone(r.Capabilities)
		c.set(r)
	}
	return c
}

func (b *Book) set(r Rule) {
	if b.rules == nil {
		b.rules = make(map[string]Rule)
	}
	b.rules[dray.HashKey(r.Root)] = r
}

// AllowMembers lets members have a root, and nobody else who does not prove a capability.
func (b *Book) AllowMembers(root cid.Cid) {
	r := b.rules[dray.HashKey(root)]
	r.Root, r.Members, r.Under = root, true, cid.Undef
	b.set(r)
}

// Give makes a root one for those who hold a capability, and adds one; a secret that is there already is not added twice.
// It returns an error for a secret of zeros, for a label that does not fit on a line, and beyond [MaxCapabilities].
func (b *Book) Give(root cid.Cid, c Capability) error {
	if err := c.check(); err != nil {
		return err
	}
	r := b.rules[dray.HashKey(root)]
	if slices.ContainsFunc(r.Capabilities, func(o Capability) bool { return o.Secret == c.Secret }) {
		return nil
	}
	if len(r.Capabilities) >= MaxCapabilities {
		return fmt.Errorf("%v has %d capabilities already; revoke some", root, len(r.Capabilities))
	}
	r.Root, r.Under = root, cid.Undef
	r.Capabilities = append(slices.Clip(r.Capabilities), c)
	b.set(r)
	return nil
}

func (c *Capability) check() error {
	switch {
	case c.Secret.IsZero():
		return errors.New("a secret of zeros")
	case len(c.Label) > MaxLabel:
		return fmt.Errorf("a label of %d bytes, at most %d", len(c.Label), MaxLabel)
	case !utf8.ValidString(c.Label) || bytes.ContainsFunc([]byte(c.Label), func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("the label %q does not fit on a line", c.Label)
	}
	return nil
}

// Revoke takes one capability of a root back and reports whether it was there. The root stays closed to all others.
func (b *Book) Revoke(root cid.Cid, s Secret) bool {
	r, ok := b.rules[dray.HashKey(root)]
	i := slices.IndexFunc(r.Capabilities, func(c Capability) bool { return c.Secret == s })
	if !ok || i < 0 {
		return false
	}
	r.Capabilities = slices.Delete(slices.Clone(r.Capabilities), i, i+1)
	b.set(r)
	return true
}

// RevokeAll takes all capabilities of a root back, and members' right to it, and returns how many capabilities there were.
// The root is then for nobody, which is not the same as open.
func (b *Book) RevokeAll(root cid.Cid) int {
	r, ok := b.rules[dray.HashKey(root)]
	if !ok || r.Under.Defined() {
		return 0
	}
	n := len(r.Capabilities)
	r.Members, r.Capabilities = false, nil
	b.set(r)
	return n
}

// Open forgets the rule of a root, which is then for everybody, and reports whether there was one. What was got as a part of
// it is open with it.
func (b *Book) Open(root cid.Cid) bool {
	key := dray.HashKey(root)
	_, ok := b.rules[key]
	delete(b.rules, key)
	for k, r := range b.rules {
		if r.Under.Defined() && dray.HashKey(r.Under) == key {
			delete(b.rules, k)
		}
	}
	return ok
}

// Nest says that a root was got as a part of another that has a rule, and is for those that the other is for. It does
// nothing when the other is open, or the part has a rule of its own.
func (b *Book) Nest(part, root cid.Cid) {
	whole, closed := b.Rule(root)
	if _, own := b.Rule(part); !closed || own {
		return
	}
	if whole.Under.Defined() {
		root = whole.Under
	}
	b.set(Rule{Root: part, Under: root})
}

// Begin says that something is being added that is to be private, under a name that stands for its root until [Book.End].
func (b *Book) Begin(name cid.Cid) { b.set(Rule{Root: name, Unfinished: true}) }

// End forgets a name that Begin was told.
func (b *Book) End(name cid.Cid) {
	if r, ok := b.Rule(name); ok && r.Unfinished {
		delete(b.rules, dray.HashKey(name))
	}
}

// Unfinished returns the names that Begin was told and End was not, in order.
func (b *Book) Unfinished() (names []cid.Cid) {
	for _, r := range b.Rules() {
		if r.Unfinished {
			names = append(names, r.Root)
		}
	}
	return names
}

// writtenBook is the form in which a Book is written.
type writtenBook struct {
	Version int           `json:"version"`
	Rules   []writtenRule `json:"rules"`
}

type writtenRule struct {
	Root         string              `json:"root"`
	Under        string              `json:"under,omitempty"`
	Members      bool                `json:"members,omitempty"`
	Capabilities []writtenCapability `json:"capabilities,omitempty"`
	Unfinished   bool                `json:"unfinished,omitempty"`
}

type writtenCapability struct {
	Secret string    `json:"secret"`
	Label  string    `json:"label,omitempty"`
	Made   time.Time `json:"made"`
}

const bookVersion = 1

// Encode returns the book as text. It holds the secrets: nobody else may read it.
func (b *Book) Encode() ([]byte, error) {
	w := writtenBook{Version: bookVersion, Rules: []writtenRule{}}
	for _, r := range b.Rules() {
		one := writtenRule{Root: r.Root.String(), Members: r.Members, Unfinished: r.Unfinished}
		if r.Under.Defined() {
			one.Under = r.Under.String()
		}
		for _, c := range r.Capabilities {
			one.Capabilities = append(one.Capabilities, writtenCapability{
				Secret: base64.StdEncoding.EncodeToString(c.Secret[:]), Label: c.Label, Made: c.Made.UTC(),
			})
		}
		w.Rules = append(w.Rules, one)
	}
	out, err := json.MarshalIndent(w, "", " ")
	if err == nil && len(out) >= MaxBook {
		err = fmt.Errorf("%w: %d bytes of rules, at most %d", dray.ErrTooBig, len(out), MaxBook)
	}
	return append(out, '\n'), err
}

// ParseBook reads what [Book.Encode] wrote. A text that is not whole is refused: whoever took it for an empty book would
// open what is private.
func ParseBook(text []byte) (*Book, error) {
	if len(text) > MaxBook {
		return nil, fmt.Errorf("%w: %d bytes of rules, at most %d", dray.ErrTooBig, len(text), MaxBook)
	}
	var w writtenBook
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, fmt.Errorf("not a list of rules: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a list of rules: there is more behind it")
	}
	if w.Version != bookVersion {
		return nil, fmt.Errorf("rules of version %d, made by another dray; this one reads version %d", w.Version, bookVersion)
	}
	b := new(Book)
	for i, r := range w.Rules {
		if err := b.read(r); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return b, nil
}

func (b *Book) read(w writtenRule) error {
	root, err := cid.Decode(w.Root)
	if err == nil {
		err = dray.CheckCID(root)
	}
	if err != nil {
		return err
	}
	if _, twice := b.Rule(root); twice {
		return fmt.Errorf("%v has another", root)
	}
	rule := Rule{Root: root, Members: w.Members, Unfinished: w.Unfinished}
	if w.Unfinished && (w.Under != "" || w.Members || len(w.Capabilities) > 0) {
		return fmt.Errorf("%v is unfinished, and has more rules", root)
	}
	if w.Under != "" {
		if rule.Under, err = cid.Decode(w.Under); err == nil {
			err = dray.CheckCID(rule.Under)
		}
		switch {
		case err != nil:
			return err
		case w.Members || len(w.Capabilities) > 0:
			return fmt.Errorf("%v is a part of %v, and has more rules", root, rule.Under)
		}
	}
	b.set(rule)
	for _, one := range w.Capabilities {
		secret, err := base64.StdEncoding.Strict().DecodeString(one.Secret)
		if err != nil || len(secret) != SecretSize {
			return fmt.Errorf("a secret of %v is not %d bytes", root, SecretSize) // which are not for the log
		}
		if err := b.Give(root, Capability{Secret(secret), one.Label, one.Made.UTC()}); err != nil {
			return err
		}
	}
	if r, _ := b.Rule(root); len(r.Capabilities) != len(w.Capabilities) {
		return fmt.Errorf("a secret of %v stands there twice", root)
	}
	return nil
}
