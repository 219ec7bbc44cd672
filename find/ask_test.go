package find

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"dray"
)

func asks() []Ask {
	return []Ask{
		{Root: root("a")},
		{Root: root("b"), Onward: true, Proof: dray.Proof{1}, Fetches: true, Addrs: []string{"/ip4/192.0.2.7/tcp/4001", "/x"}},
	}
}

func answers() []Answer {
	return []Answer{nil, {{ID: "one"}, {ID: "two", Holds: true, Addrs: []string{"/ip4/192.0.2.7/tcp/4001"}}}}
}

// TestAskBytes: what is said is understood, every cut of it is refused, and so is what is too much.
func TestAskBytes(t *testing.T) {
	for _, a := range asks() {
		b := AppendAsk(nil, a)
		got, err := ParseAsk(b)
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v became %+v, %v", a, got, err)
		}
		for n := range b {
			if _, err := ParseAsk(b[:n]); err == nil {
				t.Errorf("%d of %d bytes are understood", n, len(b))
			}
		}
		if _, err := ParseAsk(append(b, 0)); err == nil {
			t.Error("a byte too many is understood")
		}
	}
	for _, a := range answers() {
		b := AppendAnswer(nil, a)
		got, err := ParseAnswer(b)
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v became %+v, %v", a, got, err)
		}
		for n := range b {
			if _, err := ParseAnswer(b[:n]); err == nil {
				t.Errorf("%d of %d bytes are understood", n, len(b))
			}
		}
	}
	var many Answer
	for range 2 * MaxTold {
		p := Told{ID: dray.PeerID(strings.Repeat("p", 40))}
		for range 2 * MaxToldAddrs {
			p.Addrs = append(p.Addrs, strings.Repeat("a", 200), strings.Repeat("long", 100), "")
		}
		many = append(many, p)
	}
	b := AppendAnswer(nil, many)
	got, err := ParseAnswer(b)
	if err != nil || len(got) != MaxTold || len(got[0].Addrs) != MaxToldAddrs || len(b) > MaxAnswer {
		t.Errorf("an answer that is too long: %d peers, %d bytes, %v", len(got), len(b), err)
	}
	if _, err := ParseAnswer([]byte{MaxTold + 1}); err == nil {
		t.Error("too many peers are understood")
	}
}

// FuzzAsk: whatever is understood is said the same way again.
func FuzzAsk(f *testing.F) {
	for _, a := range asks() {
		f.Add(AppendAsk(nil, a), AppendAnswer(nil, answers()[1]))
	}
	f.Fuzz(func(t *testing.T, ask, answer []byte) {
		if a, err := ParseAsk(ask); err == nil {
			if b := AppendAsk(nil, a); !bytes.Equal(b, ask) {
				t.Fatalf("% x is said as % x", ask, b)
			}
		}
		if a, err := ParseAnswer(answer); err == nil {
			if b := AppendAnswer(nil, a); !bytes.Equal(b, answer) {
				t.Fatalf("% x is said as % x", answer, b)
			}
		}
	})
}
