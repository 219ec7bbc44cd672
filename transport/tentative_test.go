package transport

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray"
)

var update = flag.Bool("update", false, "rewrite the traces in testdata")

// TestTentativeScripts runs the conversations in testdata. A file is a list of paragraphs. A paragraph has comments (#),
// commands, a line ----, and what came of each command. Go test with -update rewrites the part below the line; the
// difference is to be read as prose.
//
//	bounds PEERS MESSAGES BYTES AGE WAIT   begin anew with these bounds
//	knock PEER...                          undecided peers connect
//	say PEER TEXT...                       a peer says something
//	admit PEER, leave PEER                 a peer is admitted, or goes
//	advance DURATION                       time passes
//	there                                  who is undecided, the first that came first
func TestTentativeScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/tentative*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &tentativeScript{t: t, now: time.Unix(0, 0), tent: NewTentative[string](TentativeConfig{})}
			got := s.run(string(text))
			if got == string(text) {
				return
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s: the trace differs (rewrite with -update); got:\n%s", file, got)
		})
	}
}

type tentativeScript struct {
	t    *testing.T
	now  time.Time
	tent *Tentative[string]
	out  strings.Builder
}

// run returns the text with what happens now below each line.
func (s *tentativeScript) run(text string) string {
	var out []string
	for paragraph := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		in, _, _ := strings.Cut(paragraph, "\n----")
		if !strings.Contains(paragraph, "\n----") {
			out = append(out, paragraph) // comments only
			continue
		}
		s.out.Reset()
		for line := range strings.SplitSeq(in, "\n") {
			if line != "" && line[0] != '#' {
				s.do(strings.Fields(line))
			}
		}
		out = append(out, strings.TrimRight(in+"\n----\n"+s.out.String(), "\n"))
	}
	return strings.Join(out, "\n\n") + "\n"
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
