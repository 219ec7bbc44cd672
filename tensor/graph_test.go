package tensor

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestParseExpr(t *testing.T) {
	rows := []struct {
		text, want, shared, reduced, contracted string
		transpose                               bool
	}{
		{"ij,jk->ik", "ij,jk->ik", "j", "j", "j", false},
		{"ij->ji", "ij->ji", "", "", "", true},
		{"ij->ij", "ij->ij", "", "", "", false},
		{"ij->i", "ij->i", "", "j", "", false},
		{"ii->i", "ii->i", "", "", "", false},
		{"ii->", "ii->", "", "i", "", false},
		{"ij , jk", "ij,jk->ik", "j", "j", "j", false},
		{"ba", "ba->ab", "", "", "", true},
		{"bhqd,bhkd->bhqk", "bhqd,bhkd->bhqk", "bhd", "d", "d", false},
		{"i,j->ij", "i,j->ij", "", "", "", false},
		{"i,i->i", "i,i->i", "i", "", "", false},
		{",->", ",->", "", "", "", false},
		{"", "->", "", "", "", false},
		{"aA,Ab", "aA,Ab->ab", "A", "A", "A", false},
	}
	for _, row := range rows {
		x, err := ParseExpr(row.text)
		if err != nil {
			t.Errorf("%q: %v", row.text, err)
			continue
		}
		got := fmt.Sprint(x, "|", x.Shared(), "|", x.Reduced(), "|", x.Contracted(), "|", x.Transpose())
		want := fmt.Sprint(row.want, "|", row.shared, "|", row.reduced, "|", row.contracted, "|", row.transpose)
		if got != want {
			t.Errorf("%q: %s, want %s", row.text, got, want)
		}
	}
	for text, want := range map[string]string{
		"ij,jk->il":               "character 8: 'l' is in the output and in no input",
		"ij->ii":                  "character 5: 'i' occurs twice",
		"i1":                      "character 1: '1' is neither",
		"ij->i,j":                 "character 5: there is one output",
		"i->i->i":                 "character 4: a second arrow",
		"i-j":                     "character 1: '-' is neither",
		"i-":                      "character 1: '-' is neither",
		"...i":                    "character 0: ellipses",
		strings.Repeat("a", 5000): "character 0: 5000 bytes",
	} {
		_, err := ParseExpr(text)
		var ee *ExprError
		if !errors.As(err, &ee) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: %v, want … %s", text, err, want)
		}
	}
	x, _ := ParseExpr("ij,jk->ki")
	if s, err := x.Shape([]int64{2, 3}, []int64{3, 5}); err != nil || fmt.Sprint(s) != "[5 2]" {
		t.Errorf("%v, %v", s, err)
	}
	for _, bad := range [][][]int64{{{2, 3}}, {{2, 3}, {4, 5}}, {{2}, {3, 5}}} {
		if _, err := x.Shape(bad...); err == nil {
			t.Errorf("shapes %v: no error", bad)
		}
	}
}

func FuzzExpr(f *testing.F) {
	f.Add("ij,jk->ik")
	f.Fuzz(func(t *testing.T, text string) {
		x, err := ParseExpr(text)
		if err != nil {
			return
		}
		again, err := ParseExpr(x.String())
		if err != nil || again.String() != x.String() {
			t.Fatalf("%q became %v, which became %v: %v", text, x, again, err)
		}
		for _, c := range x.Contracted() {
			if !strings.ContainsRune(x.Reduced(), c) || !strings.ContainsRune(x.Shared(), c) {
				t.Fatalf("%v: contracted %q", x, c)
			}
		}
	})
}

func TestGraphOrder(t *testing.T) {
	var g Graph
	for _, add := range [][]string{{"scores", "bd,kd->bk", "q", "k"}, {"out", "bk,kd->bd", "scores", "v"}, {"q", "bi,id->bd", "x", "wq"}} {
		if err := g.AddExpr(add[0], add[1], add[2:]...); err != nil {
			t.Fatal(err)
		}
	}
	order, err := g.Order()
	if err != nil || fmt.Sprint(order) != "[x wq q k scores v out]" || g.Len() != 7 {
		t.Errorf("%v, %v", order, err)
	}
	if x, ok := g.Expr("out"); !ok || x.String() != "bk,kd->bd" {
		t.Errorf("%v", x)
	}
	if _, ok := g.Expr("x"); ok {
		t.Error("a leaf has no expression")
	}
	if err := g.AddExpr("bad", "ij,jk", "x"); err == nil || g.Len() != 7 {
		t.Errorf("one input for two: %v, %d nodes", err, g.Len())
	}
	depths, _ := g.Depths()
	if depths["out"] != 3 || depths["scores"] != 2 || depths["v"] != 0 {
		t.Errorf("%v", depths)
	}
	g.Add("wq", "out")
	_, err = g.Order()
	var ce *CycleError
	if !errors.As(err, &ce) || !errors.Is(err, ErrCycle) || fmt.Sprint(ce.Path) != "[scores q wq out]" {
		t.Errorf("%v", err)
	}
	if _, err := g.Depths(); !errors.Is(err, ErrCycle) {
		t.Error("depths of a cycle")
	}
	if _, err := Rank(&g, func(string) int { return 0 }, cmp.Compare[int]); !errors.Is(err, ErrCycle) {
		t.Error("rank of a cycle")
	}
	var self Graph
	self.Add("a", "a")
	if _, err := self.Order(); err == nil || !strings.Contains(err.Error(), "a needs a") {
		t.Errorf("%v", err)
	}
}

// Diamonds on diamonds have 2^n paths, and chains are deeper than a stack of calls likes; neither matters.
func TestGraphSize(t *testing.T) {
	begin := time.Now()
	var g Graph
	const n = 2000
	for i := range n {
		a, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		g.Add(a, fmt.Sprintf("n%d", i))
		g.Add(b, fmt.Sprintf("n%d", i))
		g.Add(fmt.Sprintf("n%d", i+1), a, b)
	}
	d, err := g.Depths()
	if err != nil || d[fmt.Sprintf("n%d", n)] != 2*n {
		t.Errorf("depth %d, %v", d[fmt.Sprintf("n%d", n)], err)
	}
	var chain Graph
	for i := range 200_000 {
		chain.Add(fmt.Sprint(i+1), fmt.Sprint(i))
	}
	order, err := chain.Order()
	if err != nil || len(order) != 200_001 || order[0] != "0" || order[200_000] != "200000" {
		t.Errorf("%d nodes, %v", len(order), err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// What a node needs is never less urgent than the node, comes before it, and is as urgent as the most urgent of those
// that need it: no more.
func TestInherit(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 300 {
		var g Graph
		n := 2 + rng.IntN(20)
		own := make(map[string]int)
		needs := make(map[string][]string)
		for i := range n {
			name := fmt.Sprint(i)
			own[name] = rng.IntN(5)
			g.Add(name)
			for j := range i {
				if rng.IntN(4) == 0 {
					g.Add(name, fmt.Sprint(j))
					needs[name] = append(needs[name], fmt.Sprint(j))
				}
			}
		}
		urgency := func(name string) int { return own[name] }
		got, err := Inherit(&g, urgency, cmp.Compare[int])
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			// By walking down from every node: the naive way.
			want := own[fmt.Sprint(i)]
			var reaches func(from, to string) bool
			reaches = func(from, to string) bool {
				if from == to {
					return true
				}
				for _, k := range needs[from] {
					if reaches(k, to) {
						return true
					}
				}
				return false
			}
			for j := i; j < n; j++ {
				if reaches(fmt.Sprint(j), fmt.Sprint(i)) {
					want = min(want, own[fmt.Sprint(j)])
				}
			}
			if got[fmt.Sprint(i)] != want {
				t.Fatalf("node %d: %d, want %d", i, got[fmt.Sprint(i)], want)
			}
		}
		rank, err := Rank(&g, urgency, cmp.Compare[int])
		if err != nil {
			t.Fatal(err)
		}
		at := make(map[string]int)
		for i, name := range rank {
			at[name] = i
			if i > 0 && got[rank[i-1]] > got[name] {
				t.Fatalf("rank %v by %v", rank, got)
			}
		}
		for name, ks := range needs {
			for _, k := range ks {
				if at[k] > at[name] {
					t.Fatalf("%s comes after %s, which needs it", k, name)
				}
			}
		}
	}
}
