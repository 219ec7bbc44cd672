package access

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	mh "github.com/multiformats/go-multihash"

	"dray"
)

// peerID returns the id of a peer that exists for this test only.
func peerID(t testing.TB, n int) dray.PeerID {
	t.Helper()
	m, err := mh.Sum(fmt.Appendf(nil, "peer %d", n), mh.SHA2_256, 32)
	if err != nil {
		t.Fatal(err)
	}
	return dray.PeerID(m)
}

func TestMembersFile(t *testing.T) {
	a, b, c := peerID(t, 1), peerID(t, 2), peerID(t, 3)
	text := fmt.Sprintf(`# the rack
%v /ip4/192.0.2.7/tcp/4001 /ip4/192.0.2.7/udp/4001/quic-v1/p2p/%v   # the first

	%v
%v /dns4/c.example/tcp/4001`, a, a, b, c)
	m, err := ParseMembers([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Member{
		{a, []string{"/ip4/192.0.2.7/tcp/4001", "/ip4/192.0.2.7/udp/4001/quic-v1"}, 2},
		{b, nil, 4},
		{c, []string{"/dns4/c.example/tcp/4001"}, 5},
	}
	if !slices.EqualFunc(m.List(), want, func(x, y Member) bool {
		return x.ID == y.ID && x.Line == y.Line && slices.Equal(x.Addrs, y.Addrs)
	}) {
		t.Errorf("read as %+v", m.List())
	}
	if !m.Has(a) || !m.Has(c) || m.Has(peerID(t, 4)) || m.Has("") {
		t.Error("membership is wrong")
	}
	if none := (*Members)(nil); none.Has(a) || none.List() != nil {
		t.Error("no members at all have a member")
	}
}

func TestMembersFileRefused(t *testing.T) {
	a, b := peerID(t, 1).String(), peerID(t, 2).String()
	many := strings.Builder{}
	for i := range MaxMemberAddrs + 1 {
		fmt.Fprintf(&many, " /ip4/192.0.2.7/tcp/%d", i+1)
	}
	for _, c := range []struct {
		name, text string
		line       int
		says       string
	}{
		{"no id", "x\n", 1, `"x" is no peer id; a line begins with the id of a peer`},
		{"an address first", a + "\n/ip4/192.0.2.7/tcp/1 " + b, 2, "it begins with the address"},
		{"a peer twice", a + "\n\n# again\n" + b + "\n" + a + " /ip4/192.0.2.7/tcp/1\n", 5, a + " stands in line 1 already"},
		{"no address", a + " 192.0.2.7:4001", 1, `"192.0.2.7:4001" is no address; right is a multiaddr like /ip4/192.0.2.7/tcp/4001`},
		{"a bad address", a + "\n" + b + " /ip4/192.0.2.777/tcp/4001", 2, "is no address ("},
		{"another's address", a + " /ip4/192.0.2.7/tcp/1/p2p/" + b, 1, "names another peer than the line"},
		{"a peer for an address", a + " /p2p/" + a, 1, "is no address but a peer"},
		{"an address twice", a + " /ip4/192.0.2.7/tcp/1 /ip4/192.0.2.7/tcp/1/p2p/" + a, 1, "stands there twice"},
		{"too many addresses", a + many.String(), 1, "more than 32 addresses"},
		{"a control character", a + " \x07", 1, "control character U+0007"},
		{"no text", "\xff\xfe", 1, "no UTF-8 text"},
		{"too long", strings.Repeat("\n", MaxMembersFile+1), 1, "the file has 4194305 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ParseMembers([]byte(c.text))
			var at *LineError
			if m != nil || !errors.As(err, &at) {
				t.Fatalf("read as %v, %v", m, err)
			}
			if at.Line != c.line || !strings.Contains(err.Error(), c.says) || at.Right == "" {
				t.Errorf("it says %q, not %q of line %d", err, c.says, c.line)
			}
		})
	}
}

func TestTooManyMembers(t *testing.T) {
	var text strings.Builder
	for i := range MaxMembers + 1 {
		fmt.Fprintln(&text, peerID(t, i))
	}
	var at *LineError
	if _, err := ParseMembers([]byte(text.String())); !errors.As(err, &at) || at.Line != MaxMembers+1 {
		t.Errorf("it says %v", err)
	}
}

func TestEditMembers(t *testing.T) {
	a, b, c := peerID(t, 1), peerID(t, 2), peerID(t, 3)
	text := []byte(fmt.Sprintf("# ours\n%v # the first\r\n%v /ip4/192.0.2.8/tcp/1", a, b))
	var err error
	for _, add := range []Member{
		{ID: c, Addrs: []string{"/ip4/192.0.2.9/tcp/1"}},
		{ID: a, Addrs: []string{"/ip4/192.0.2.7/tcp/1/p2p/" + a.String()}},
		{ID: b, Addrs: []string{"/ip4/192.0.2.8/tcp/1", "/ip4/192.0.2.8/tcp/2"}},
	} {
		if text, err = AddMember(text, add); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprintf("# ours\n%v /ip4/192.0.2.7/tcp/1 # the first\n%v /ip4/192.0.2.8/tcp/1 /ip4/192.0.2.8/tcp/2\n"+
		"%v /ip4/192.0.2.9/tcp/1\n", a, b, c)
	if string(text) != want {
		t.Errorf("written:\n%swant:\n%s", text, want)
	}
	text, there, err := RemoveMember(text, b)
	if err != nil || !there || bytes.Contains(text, []byte(b.String())) || !bytes.Contains(text, []byte("# the first")) {
		t.Errorf("removed: %v %v\n%s", there, err, text)
	}
	if _, there, _ = RemoveMember(text, b); there {
		t.Error("removed twice")
	}
	if _, err := AddMember(text, Member{ID: b, Addrs: []string{"nowhere"}}); err == nil {
		t.Error("a member without a proper address was added")
	}
	if _, err := AddMember([]byte("nonsense"), Member{ID: b}); err == nil {
		t.Error("a malformed file was edited")
	}
}

func FuzzMembers(f *testing.F) {
	a, b := peerID(f, 1).String(), peerID(f, 2).String()
	f.Add([]byte("# nobody\n"))
	f.Add([]byte(a + " /ip4/192.0.2.7/tcp/4001 # one\n\n" + b))
	f.Add([]byte(a + "\n" + a))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseMembers(text)
		var at *LineError
		if err != nil {
			if m != nil || !errors.As(err, &at) || at.Line < 1 || at.Right == "" {
				t.Fatalf("refused with %v, %v", m, err)
			}
			return
		}
		var again strings.Builder
		for _, one := range m.List() {
			fmt.Fprintln(&again, one)
		}
		k, err := ParseMembers([]byte(again.String()))
		if err != nil || len(k.List()) != len(m.List()) {
			t.Fatalf("what was read is not written: %v", err)
		}
		for _, one := range m.List() {
			rest, there, err := RemoveMember(text, one.ID)
			if err != nil || !there {
				t.Fatal(there, err)
			}
			if left, err := ParseMembers(rest); err != nil || left.Has(one.ID) || len(left.List()) != len(m.List())-1 {
				t.Fatalf("after one is removed: %v", err)
			}
		}
	})
}
