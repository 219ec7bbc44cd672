package p2p

import (
	"strings"
	"testing"

	"dray"
)

// What a key signs is known as its host's, and nothing else is.
func TestSign(t *testing.T) {
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := k.ID()
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("a text")
	sig, err := k.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(id, text, sig); err != nil {
		t.Error(err)
	}
	other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := other.ID()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		why  string
		id   dray.PeerID
		text string
		sig  []byte
	}{
		{"another text", id, "a texT", sig},
		{"another key", stranger, "a text", sig},
		{"no signature", id, "a text", nil},
		{"half a signature", id, "a text", sig[:32]},
		{"no key", "", "a text", sig},
		{"an id without a key", dray.PeerID("\x12\x20" + strings.Repeat("x", 32)), "a text", sig},
	} {
		if Verify(x.id, []byte(x.text), x.sig) == nil {
			t.Errorf("%s counts", x.why)
		}
	}
	if _, err := (Key{}).Sign(text); err == nil {
		t.Error("no key signs")
	}
}
