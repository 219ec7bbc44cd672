package access

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
)

func rootCID(t testing.TB, n int) cid.Cid {
	t.Helper()
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: 32}, fmt.Appendf(nil, "root %d", n))
	if err != nil {
		t.Fatal(err)
	}
	return b.CID()
}

func secretOf(b byte) (s Secret) {
	for i := range s {
		s[i] = b
	}
	return s
}

func give(t testing.TB, b *Book, root cid.Cid, s Secret) {
	t.Helper()
	if err := b.Give(root, Capability{Secret: s, Made: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
}

// A proof holds for one root, from one peer, to one peer, and while the capability does.
func TestProof(t *testing.T) {
	getter, server, other := peerID(t, 1), peerID(t, 2), peerID(t, 3)
	root, more := rootCID(t, 1), rootCID(t, 2)
	secret := secretOf(7)
	var mine, theirs Book
	give(t, &mine, root, secret)
	give(t, &theirs, root, secretOf(8))
	give(t, &theirs, root, secret)
	give(t, &theirs, more, secret) // the same bytes make another capability of another root
	g := NewGate(GateConfig{Self: getter, Book: &mine})
	s := NewGate(GateConfig{Self: server, Book: &theirs})
	o := NewGate(GateConfig{Self: other, Book: &theirs})
	p := g.Prove(root, server)
	if p.IsZero() {
		t.Fatal("there is no proof")
	}
	if got, ok := s.Opens(p, getter, root); !ok || got != root {
		t.Errorf("the proof opens %v, %v", got, ok)
	}
	if got, ok := s.Opens(p, getter, more); !ok || got != root {
		t.Errorf("asked about something below, the proof opens %v, %v", got, ok)
	}
	for i := range p {
		bad := p
		bad[i] ^= 1
		if _, ok := s.Opens(bad, getter, root); ok {
			t.Errorf("a proof with another byte %d is accepted", i)
		}
	}
	if _, ok := s.Opens(p, other, root); ok {
		t.Error("another peer's proof is accepted")
	}
	if _, ok := o.Opens(p, getter, root); ok {
		t.Error("a proof for another server is accepted")
	}
	if _, ok := s.Opens(dray.Proof{}, getter, root); ok {
		t.Error("no proof is accepted")
	}
	v0 := cid.NewCidV0(root.Hash())
	if g.Prove(v0, server) != p || !g.Closed(v0) {
		t.Error("the same root under another CID is another")
	}
	if !g.Prove(more, server).IsZero() {
		t.Error("there is a proof of a root without a capability")
	}
	if !theirs.Revoke(root, secret) || theirs.Revoke(root, secret) {
		t.Error("revoked not once")
	}
	s = NewGate(GateConfig{Self: server, Book: &theirs})
	if _, ok := s.Opens(p, getter, root); ok {
		t.Error("a revoked proof is accepted")
	}
	if _, ok := o.Opens(g.Prove(root, other), getter, root); !ok {
		t.Error("a gate has changed with its book")
	}
	if theirs.RevokeAll(root) != 1 || s.May(root, getter) {
		t.Error("the root is open when nobody may have it")
	}
	if !theirs.Open(root) || theirs.Open(root) || NewGate(GateConfig{Self: server, Book: &theirs}).Closed(root) {
		t.Error("the root is not open")
	}
}

// The bytes of a proof are a promise to other versions.
func TestProofBytes(t *testing.T) {
	root := rootCID(t, 1)
	var b Book
	give(t, &b, root, secretOf(7))
	p := NewGate(GateConfig{Self: "getter", Book: &b}).Prove(root, "server")
	const want = "c11ef43f61df11b8" + "6c48f76de526e4f3fa1d2409f0a41776e65f0597350700cc929957482e16e350"
	if got := fmt.Sprintf("%x", p); got != want {
		t.Errorf("the proof is %s, want %s", got, want)
	}
}

func TestMembersOnly(t *testing.T) {
	a, b := peerID(t, 1), peerID(t, 2)
	m, err := ParseMembers([]byte(a.String()))
	if err != nil {
		t.Fatal(err)
	}
	root, open := rootCID(t, 1), rootCID(t, 2)
	var book Book
	book.AllowMembers(root)
	g := NewGate(GateConfig{Self: "me", Book: &book, Members: m})
	if !g.May(root, a) || g.May(root, b) || g.May(open, b) || !g.Serves(b) {
		t.Error("who may have a root for members is wrong")
	}
	if g = NewGate(GateConfig{Self: "me", Members: m, MembersOnly: true}); !g.Serves(a) || g.Serves(b) {
		t.Error("who is served is wrong")
	}
	if g = NewGate(GateConfig{Self: "me", MembersOnly: true}); g.Serves(a) {
		t.Error("without members somebody is served")
	}
}

func TestBookIsWritten(t *testing.T) {
	var b Book
	give(t, &b, rootCID(t, 1), secretOf(1))
	if err := b.Give(rootCID(t, 1), Capability{secretOf(2), "für Ada", time.Unix(1700000000, 0)}); err != nil {
		t.Fatal(err)
	}
	b.AllowMembers(rootCID(t, 2))
	b.AllowMembers(rootCID(t, 3))
	b.RevokeAll(rootCID(t, 3))
	b.Nest(rootCID(t, 4), rootCID(t, 2))
	b.Nest(rootCID(t, 5), rootCID(t, 4))
	b.Nest(rootCID(t, 6), rootCID(t, 9)) // which is open
	text, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseBook(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := k.Encode()
	if err != nil || string(again) != string(text) {
		t.Errorf("written again: %v\n%s\n%s", err, text, again)
	}
	if r, ok := k.Rule(rootCID(t, 1)); !ok || len(r.Capabilities) != 2 || r.Capabilities[1].Label != "für Ada" {
		t.Errorf("read as %+v", r)
	}
	if r, ok := k.Rule(rootCID(t, 3)); !ok || r.Members {
		t.Error("a root for nobody was forgotten")
	}
	if r, ok := k.Rule(rootCID(t, 5)); !ok || r.Under != rootCID(t, 2) {
		t.Errorf("a part of a part is read as %+v", r)
	}
	if _, ok := k.Rule(rootCID(t, 6)); ok {
		t.Error("a part of what is open has a rule")
	}
	for i := range text[:len(text)-1] {
		if _, err := ParseBook(text[:i]); err == nil {
			t.Fatalf("%d bytes of %d are read as a book", i, len(text))
		}
	}
	if k.Open(rootCID(t, 2)); k.Len() != 2 {
		t.Errorf("after a root was opened with its parts there are %+v", k.Rules())
	}
	if s := fmt.Sprintf("%v %+v %#v", b.Rules(), b.Rules(), secretOf(1)); strings.Contains(s, "1 1 1") || strings.Contains(s, "0x1, 0x1") {
		t.Errorf("a secret is printed: %s", s)
	}
}

func TestBookRefused(t *testing.T) {
	root := rootCID(t, 1)
	const secret = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
	rule := func(rest string) string { return fmt.Sprintf(`{"root":%q%s}`, root, rest) }
	capability := func(s string) string { return fmt.Sprintf(`{"secret":%q,"made":"2026-01-02T03:04:05Z"}`, s) }
	for name, text := range map[string]string{
		"another version":     `{"version":2,"rules":[]}`,
		"unknown fields":      `{"version":1,"rules":[` + rule(`,"everybody":true`) + `]}`,
		"a root twice":        `{"version":1,"rules":[` + rule("") + `,` + rule("") + `]}`,
		"no root":             `{"version":1,"rules":[{"root":"x"}]}`,
		"a short secret":      `{"version":1,"rules":[` + rule(`,"capabilities":[`+capability("AQE=")+`]`) + `]}`,
		"a secret twice":      `{"version":1,"rules":[` + rule(`,"capabilities":[`+capability(secret)+`,`+capability(secret)+`]`) + `]}`,
		"a part with secrets": `{"version":1,"rules":[` + rule(fmt.Sprintf(`,"under":%q,"members":true`, root)) + `]}`,
		"more behind":         `{"version":1,"rules":[]} {}`,
	} {
		if _, err := ParseBook([]byte(text)); err == nil || strings.Contains(err.Error(), "AQE") {
			t.Errorf("%s: read, or the secret told: %v", name, err)
		}
	}
	if _, err := ParseBook([]byte(`{"version":1,"rules":[` + rule(`,"capabilities":[`+capability(secret)+`]`) + `]}`)); err != nil {
		t.Error(err)
	}
}

func FuzzBook(f *testing.F) {
	var b Book
	b.AllowMembers(rootCID(f, 1))
	give(f, &b, rootCID(f, 2), secretOf(2))
	text, err := b.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ParseBook(text)
		if err != nil {
			return
		}
		once, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParseBook(once)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := k.Encode(); err != nil || string(again) != string(once) {
			t.Fatalf("%s\n%s", once, again)
		}
	})
}

// Whatever is known of a proof, checking it takes one code: the figures of the three must be alike.
func BenchmarkOpens(b *testing.B) {
	root := rootCID(b, 1)
	var book, none Book
	give(b, &book, root, secretOf(7))
	s := NewGate(GateConfig{Self: "server", Book: &book})
	p := NewGate(GateConfig{Self: "getter", Book: &book}).Prove(root, "server")
	bad := p
	bad[20] ^= 1
	for name, c := range map[string]struct {
		g *Gate
		p dray.Proof
	}{"right": {s, p}, "wrong": {s, bad}, "unknown": {NewGate(GateConfig{Self: "server", Book: &none}), p}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c.g.Opens(c.p, "getter", root)
			}
		})
	}
}
