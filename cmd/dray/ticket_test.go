package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/transport"
)

func sampleTicket(t testing.TB) ticket {
	t.Helper()
	root, err := cid.Decode("bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am")
	if err != nil {
		t.Fatal(err)
	}
	a, err := dray.ParsePeerID("12D3KooWJj9cnwxZc2ePMN7shJAtASiiuF4GYp3J8hoPxe1oWJ2K")
	if err != nil {
		t.Fatal(err)
	}
	b, err := dray.ParsePeerID("12D3KooWRmdZK7BcbwoJcRVv4A4XLaU5aSknHMRZpfSB8mWrCFsT")
	if err != nil {
		t.Fatal(err)
	}
	return ticket{
		root: root, name: "modèle.bin", size: 123456789,
		peers: []transport.Peer{
			{ID: a, Addrs: []string{"/ip4/192.0.2.7/tcp/4001", "/ip4/192.0.2.7/udp/4001/quic-v1"}},
			{ID: b, Addrs: []string{"/ip6/2001:db8::1/tcp/4001"}},
		},
	}
}

func TestTicketRoundTrip(t *testing.T) {
	full := sampleTicket(t)
	bare := ticket{root: full.root, size: -1}
	for _, want := range []ticket{full, bare} {
		s := want.String()
		for _, spelled := range []string{s, strings.ToUpper(s), s[:20] + "\n  " + s[20:]} {
			got, err := parseTicket(spelled)
			if err != nil {
				t.Fatalf("%q: %v", spelled, err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%q: got %+v, want %+v", spelled, got, want)
			}
		}
	}
}

// TestTicketGolden fixes the form: tickets outlive programs.
func TestTicketGolden(t *testing.T) {
	const want = "dray1aesacvisebmjdnnvelk56cdnb7ylceh33hjbxnh4ofr26ngqqkdkf2cg627ah77243vq"
	got := ticket{root: sampleTicket(t).root, size: -1}.String()
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestTicketMistakes makes every mistake of one letter that there is, and every cut.
func TestTicketMistakes(t *testing.T) {
	s := sampleTicket(t).String()
	for i := range s {
		if _, err := parseTicket(s[:i]); err == nil {
			t.Errorf("cut after %d letters: no error", i)
		}
		for _, r := range "abcdefghijklmnopqrstuvwxyz234567" {
			if wrong := s[:i] + string(r) + s[i+1:]; wrong != s {
				if _, err := parseTicket(wrong); err == nil {
					t.Errorf("%q for letter %d: no error", r, i)
				}
			}
		}
	}
}

func TestTicketFields(t *testing.T) {
	root := sampleTicket(t).root.Bytes()
	field := func(tag byte, value ...byte) []byte { return append([]byte{tag, byte(len(value))}, value...) }
	rootField := field(tagCID, root...)
	join := func(parts ...[]byte) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for _, x := range []struct {
		name   string
		fields []byte
		want   string // part of the error; empty for none
	}{
		{"bare", rootField, ""},
		{"unknown and skippable", join(rootField, field(99, 1, 2)), ""},
		{"unknown", join(rootField, field(9, 1)), "field 9 is unknown"},
		{"no root", field(tagSize, 1), "names no root"},
		{"two roots", join(rootField, rootField), "stands twice"},
		{"cut off", rootField[:len(rootField)-1], "cut off"},
		{"bad root", field(tagCID, 1, 2, 3), "made it wrong"},
		{"address without peer", join(rootField, field(tagAddr, 6, 0, 80)), "before its peer"},
		{"bad peer", join(rootField, field(tagPeer, 1, 2)), "bad peer id"},
		{"path as name", join(rootField, field(tagName, []byte("../x")...)), "cannot be a file's"},
		{"size", join(rootField, field(tagSize, 0xff)), "no number"},
		{"capability", join(rootField, field(tagCapability, 1)), "its capability is not 32 bytes"},
	} {
		_, err := parseFields(x.fields)
		switch {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", x.name, err)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}

func FuzzTicket(f *testing.F) {
	f.Add([]byte{})
	s := sampleTicket(f).String()
	b, err := ticketCode.DecodeString(s[len(ticketPrefix):])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-ticketSum])
	f.Fuzz(func(t *testing.T, fields []byte) {
		k, err := parseFields(fields)
		if err != nil {
			return
		}
		again, err := parseTicket(k.String())
		if err != nil {
			t.Fatalf("%q: %v", k, err)
		}
		if again.String() != k.String() {
			t.Errorf("%q became %q", k, again)
		}
	})
}

func TestSuggest(t *testing.T) {
	known := []string{"serve", "share", "stat", "get"}
	for name, want := range map[string]string{
		"serv": "serve", "shaer": "share", "sta": "stat", "gte": "get", "SERVE": "serve",
	} {
		if got := suggest(name, known, "none"); got != "; did you mean "+want+"?" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := suggest("elephant", known, "none"); got != "; none" {
		t.Errorf("elephant: %s", got)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9951: "10 kB", 999_499: "999 kB", 999_501: "1.0 MB",
		268435456: "268 MB", 1 << 62: "4.6 EB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
