package tensor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray"
)

func TestPattern(t *testing.T) {
	rows := []struct{ pattern, yes, no string }{
		{"a.b", "a.b", "a.bc|xa.b|aab|"},
		{"", "", "a"},
		{"*", "|a|a.b.c", ""},
		{"a*c", "ac|abc|a.b.c|acc", "acb|ca"},
		{"a?c", "abc|aéc|a.c", "ac|abbc"},
		{"model.layers.[0-7].*", "model.layers.0.x|model.layers.7.self_attn.q_proj.weight|model.layers.007.x", "model.layers.8.x|model.layers.17.x|model.layers.70.x|model.layers..x|model.layers.x.x"},
		{"l[9-11]", "l9|l10|l11|l09", "l8|l12|l1|l9x|l90"},
		{"l[0-3,8,12-15]*", "l0|l3.x|l8|l12|l15b", "l4|l80|l16|l123"},
		{"l1[0-9]", "", "l11|l1"},
		{"*[5]*", "a5|5|5b|x5y5", "15|55|a51"},
		{"l[99999999999999999999-100000000000000000000]", "l99999999999999999999|l100000000000000000000", "l99999999999999999998"},
		{"[a-c_]x", "ax|cx|_x", "dx|x|aax"},
		{"[!a-c]x", "dx|éx", "ax|x"},
		{"[^.]*", "a|ab.c", ".a"},
		{"[a\\]-]", "a|]|-", "b"},
		{"{a,b*}.w", "a.w|b.w|bcd.w", "ac.w|.w|c.w"},
		{"x{,.y,{1,2}z}", "x|x.y|x1z|x2z", "xz|x12z"},
		{"{q,k,v}_proj", "q_proj|k_proj|v_proj", "o_proj|_proj"},
		{"a,b", "a,b", "a|b"},
		{`\*\[\{\\`, `*[{\`, "a"},
		{"*a*a*a*b", "aaab|xaxaxaxb", strings.Repeat("a", 200)},
	}
	for _, row := range rows {
		p, err := ParsePattern(row.pattern)
		if err != nil {
			t.Errorf("%q: %v", row.pattern, err)
			continue
		}
		if p.String() != row.pattern {
			t.Errorf("%q became %q", row.pattern, p)
		}
		if row.yes != "" || row.pattern == "" {
			for s := range strings.SplitSeq(row.yes, "|") {
				if !p.Match(s) {
					t.Errorf("%q does not match %q", row.pattern, s)
				}
			}
		}
		if row.no != "" {
			for s := range strings.SplitSeq(row.no, "|") {
				if p.Match(s) {
					t.Errorf("%q matches %q", row.pattern, s)
				}
			}
		}
	}
	for pattern, want := range map[string]string{
		"a[0-":                   "character 1: '[' without",
		"a]":                     "character 1: ']' without",
		"{a,b":                   "character 0: '{' without",
		"a}":                     "character 1: '}' without",
		`a\`:                     "character 1: nothing after",
		"[]":                     "character 1: \"\" is neither",
		"[!]":                    "character 0: an empty set",
		"[7-3]":                  "character 1: 7-3 is empty",
		"[z-a]":                  "character 0: z-a is empty",
		"[1-2-3]":                "neither a number",
		"[1,]":                   "neither a number",
		"a\xff":                  "character 1: not UTF-8",
		strings.Repeat("{", 9):   "character 8: braces nested",
		strings.Repeat("a", 1e4): "10000 bytes",
	} {
		_, err := ParsePattern(pattern)
		if !errors.Is(err, ErrBadPattern) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want … %s", pattern, err, want)
		}
	}
}

// Patterns made to be slow are not.
func TestPatternTime(t *testing.T) {
	p, err := ParsePattern(strings.Repeat("{a,*}", 100) + "b")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if p.Match(strings.Repeat("a", 2000)) {
		t.Error("matches")
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

// Patterns of literals, wildcards and alternatives mean what the same regular expressions mean.
func TestPatternLikeRegexp(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	atoms := [][2]string{{"a", "a"}, {"b", "b"}, {".", `\.`}, {"*", ".*"}, {"?", "."}, {"[ab]", "[ab]"}, {"[!a]", "[^a]"}, {"{a,bb,}", "(a|bb|)"}, {"{a*,{b,?}}", "(a.*|(b|.))"}}
	for range 3000 {
		var glob, re string
		for range rng.IntN(6) {
			a := atoms[rng.IntN(len(atoms))]
			glob, re = glob+a[0], re+a[1]
		}
		p, err := ParsePattern(glob)
		if err != nil {
			t.Fatal(err)
		}
		x := regexp.MustCompile("^(?:" + re + ")$")
		for range 10 {
			var name string
			for range rng.IntN(7) {
				name += string("ab."[rng.IntN(3)])
			}
			if p.Match(name) != x.MatchString(name) {
				t.Fatalf("%q and %q: %v", glob, name, p.Match(name))
			}
		}
	}
}

func TestSelect(t *testing.T) {
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("model.layers.%d.mlp.down_proj.weight", i))
	}
	names = append(names, "model.norm.weight", "lm_head.weight")
	got, err := Select(names, []string{"lm_head*", "model.layers.[9-10].*", "model.layers.10.*"})
	if err != nil || fmt.Sprint(got) != "[9 10 13]" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := Select(names, nil); err != nil || len(got) != len(names) {
		t.Errorf("%v, %v", got, err)
	}
	_, err = Select(names, []string{"*", "lm_haed.weight"})
	var nm *NoMatchError
	if !errors.As(err, &nm) || !errors.Is(err, dray.ErrNotFound) || nm.Pattern != "lm_haed.weight" || nm.Near[0] != "lm_head.weight" {
		t.Errorf("%v", err)
	}
	_, err = Select(names, []string{"model.layers.[12-20].mlp.*"})
	if !errors.As(err, &nm) || len(nm.Near) != 5 || !strings.HasPrefix(nm.Near[0], "model.layers.") {
		t.Errorf("%v", err)
	}
	if _, err := Select(names, []string{"[z-a]"}); !errors.Is(err, ErrBadPattern) {
		t.Errorf("%v", err)
	}
	if _, err := Select(nil, []string{"a"}); !errors.Is(err, dray.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestEditDistance(t *testing.T) {
	for _, row := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"ab", "ba", 2}, {"flaw", "lawn", 2}} {
		if got := editDistance(row.a, row.b); got != row.want || editDistance(row.b, row.a) != row.want {
			t.Errorf("%q to %q: %d, want %d", row.a, row.b, got, row.want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("model.layers.[0-7].{a,b}*[!x-z]", "model.layers.3.abc")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(name) > 300 {
			return
		}
		p, err := ParsePattern(pattern)
		if err != nil {
			if !errors.Is(err, ErrBadPattern) {
				t.Fatal(err)
			}
			return
		}
		if p.Match(name) && !strings.HasPrefix(name, p.literal) {
			t.Fatalf("%q matches %q", pattern, name)
		}
		if _, reach := p.run(name); reach > len(name) {
			t.Fatalf("reach %d", reach)
		}
	})
}

func TestOrder(t *testing.T) {
	names := []string{
		"lm_head.weight", "model.layers.10.input_layernorm.weight", "model.layers.2.mlp.down_proj.weight",
		"model.layers.2.self_attn.q_proj.weight", "model.norm.weight", "model.layers.2.post_attention_layernorm.weight",
		"model.layers.2.input_layernorm.weight", "model.embed_tokens.weight", "rope.freqs", "vision_tower.layers.3.attn.q.weight",
		"model.layers.2.mlp.experts.10.w1.weight", "model.layers.2.mlp.experts.9.w1.weight",
	}
	got, err := Order(names, ByLayers)
	if err != nil {
		t.Fatal(err)
	}
	want := []int{9, 7, 6, 3, 5, 2, 11, 10, 1, 8, 4, 0}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		for _, i := range got {
			t.Log(names[i])
		}
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := Order(names, ByFile); err != nil || got[0] != 0 || got[11] != 11 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Order(names, "size"); err == nil {
		t.Error("an unknown order")
	}
	gguf := []string{"output.weight", "output_norm.weight", "blk.11.attn_q.weight", "blk.2.ffn_norm.weight", "blk.2.attn_norm.weight", "token_embd.weight", "blk.2.ffn_up.weight"}
	if got, _ := Order(gguf, ByLayers); fmt.Sprint(got) != "[5 4 3 6 2 1 0]" {
		t.Errorf("gguf %v", got)
	}
	t5 := []string{"decoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.0.layer.1.DenseReluDense.wo.weight", "shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight", "lm_head.weight"}
	if got, _ := Order(t5, ByLayers); fmt.Sprint(got) != "[2 3 1 0 4]" {
		t.Errorf("t5 %v", got)
	}
	gpt2 := []string{"h.0.attn.c_attn.weight", "h.0.ln_1.weight", "h.1.ln_2.weight", "ln_f.weight", "wpe.weight", "wte.weight"}
	if got, _ := Order(gpt2, ByLayers); fmt.Sprint(got) != "[4 5 1 0 2 3]" {
		t.Errorf("gpt2 %v", got)
	}
}

// CompareNatural is a total order: antisymmetric, transitive, and equal only for equal strings.
func TestCompareNatural(t *testing.T) {
	var all []string
	for _, a := range []string{"", "a", "0", "1", "01", "10", "9", ":", "/"} {
		for _, b := range []string{"", "a", "1", "01", "2", "12", ".", "b"} {
			for _, c := range []string{"", "0", "x"} {
				all = append(all, a+b+c)
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			ab := CompareNatural(a, b)
			if ab != -CompareNatural(b, a) || (ab == 0) != (a == b) {
				t.Fatalf("%q and %q: %d", a, b, ab)
			}
			for _, c := range all {
				if ab < 0 && CompareNatural(b, c) < 0 && CompareNatural(a, c) >= 0 {
					t.Fatalf("%q < %q < %q", a, b, c)
				}
			}
		}
	}
	if CompareNatural("layer.9.w", "layer.10.a") >= 0 || CompareNatural("a2", "a10") >= 0 {
		t.Error("numbers by value")
	}
}

// What a safetensors file cannot hold is refused by name, and not written wrong.
func TestSubsetForeign(t *testing.T) {
	f32 := typed(t, "F32")
	for _, x := range []*Tensor{
		{Name: "quantised", DType: typed(t, "Q4_0"), Shape: []int64{32}, End: 18},
		{Name: "packed", DType: f32, Shape: []int64{100}, End: 7, Packed: true},
		{Name: "columns", DType: f32, Shape: []int64{2, 2}, End: 16, Fortran: true},
		{Name: "odd", DType: DType{Name: "X9"}, Shape: []int64{2}, End: 16},
	} {
		_, err := NewSubset([]Piece{{Tensor: x}}, nil)
		if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), strconv.Quote(x.Name)) {
			t.Errorf("%s: %v", x.Name, err)
		}
	}
}
