package transport

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/internal/scripttest"
)

// TestTentativeScripts runs the conversations in testdata, as package scripttest does.
//
//	bounds PEERS MESSAGES BYTES AGE WAIT   begin anew with these bounds
//	knock PEER...                          undecided peers connect
//	say PEER TEXT...                       a peer says something
//	admit PEER, leave PEER                 a peer is admitted, or goes
//	advance DURATION                       time passes
//	there                                  who is undecided, the first that came first
func TestTentativeScripts(t *testing.T) {
	scripttest.Run(t, "testdata/tentative*.txt", func(t *testing.T, text string) string {
		s := &tentativeScript{t: t, now: time.Unix(0, 0), tent: NewTentative[string](TentativeConfig{})}
		return scripttest.Paragraphs(text, &s.out, s.do)
	})
}

type tentativeScript struct {
	t    *testing.T
	now  time.Time
	tent *Tentative[string]
	out  strings.Builder
}

func (s *tentativeScript) do(f []string) {
	args := f[1:]
	switch f[0] {
	case "bounds":
		var n [3]int
		for i := range n {
			n[i], _ = strconv.Atoi(args[i])
		}
		cfg := TentativeConfig{Peers: n[0], Messages: n[1], Bytes: n[2], Age: s.duration(args[3]), Wait: s.duration(args[4])}
		s.tent = NewTentative[string](cfg)
	case "knock":
		for _, p := range args {
			s.dismissed(s.tent.Add(s.now, dray.PeerID(p)))
		}
	case "say":
		for _, m := range args[1:] {
			for _, lost := range s.tent.Hold(s.now, dray.PeerID(args[0]), m, len(m)) {
				fmt.Fprintf(&s.out, "lost %s\n", lost)
			}
		}
	case "admit", "leave":
		h, ok := s.tent.Take(s.now, dray.PeerID(args[0]))
		switch {
		case !ok:
			fmt.Fprintf(&s.out, "%s is not there\n", args[0])
		case f[0] == "admit":
			fmt.Fprintf(&s.out, "handed over %v, dropped %d, too old %v\n", h.Messages, h.Dropped, h.Aged)
		default:
			fmt.Fprintf(&s.out, "thrown away %v\n", h.Messages)
		}
	case "advance":
		s.now = s.now.Add(s.duration(args[0]))
		s.dismissed(s.tent.Expire(s.now))
	case "there":
		due, ok := s.tent.Due()
		var names []string
		for _, p := range s.tent.Peers() {
			names = append(names, string(p))
		}
		fmt.Fprintf(&s.out, "there: %s", strings.Join(names, " "))
		if ok {
			fmt.Fprintf(&s.out, ", the first until %v", due.Sub(time.Unix(0, 0)))
		}
		s.out.WriteByte('\n')
	default:
		s.t.Fatalf("unknown command %q", f[0])
	}
}

func (s *tentativeScript) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *tentativeScript) dismissed(list []Held[string]) {
	for _, h := range list {
		fmt.Fprintf(&s.out, "%s dismissed with %v\n", string(h.Peer), h.Messages)
	}
}
