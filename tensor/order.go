package tensor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// OrderKind is an order in which tensors are used.
type OrderKind string

const (
	// ByFile is the order of the bytes in the file, or of the names as they are given.
	ByFile OrderKind = "file"
	// ByLayers is the order in which a forward pass needs tensors: encoders before decoders, embeddings, the layers by
	// number, the final norm, the head. Within a layer, what normalises its input comes first, then attention, then the
	// norm after it, then the feed-forward part.
	ByLayers OrderKind = "layers"
)

// Order returns the indexes of names in the order of use. It is a permutation: names that say nothing about their
// place come between the layers and the final norm. It fails for a kind that it does not know.
func Order(names []string, kind OrderKind) ([]int, error) {
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	switch kind {
	case ByFile, "":
		return order, nil
	case ByLayers:
	default:
		return nil, fmt.Errorf("unknown order %q; the orders are %s and %s", string(kind), ByFile, ByLayers)
	}
	places := make([]usePlace, len(names))
	for i, n := range names {
		places[i] = placeOf(n)
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &places[a], &places[b]
		return cmp.Or(
			cmp.Compare(x.stack, y.stack), cmp.Compare(x.part, y.part),
			CompareNatural(x.prefix, y.prefix), compareDigits(x.layer, y.layer), cmp.Compare(x.step, y.step),
			CompareNatural(names[a], names[b]),
		)
	})
	return order, nil
}

// usePlace is where in a forward pass a tensor is used.
type usePlace struct {
	stack  int // encoders 0, the rest 1
	part   int // the parts below
	prefix string
	layer  string // decimal digits
	step   int    // within a layer
}

const (
	partEmbedding = iota
	partLayer
	partOther
	partNorm
	partHead
)

func placeOf(name string) usePlace {
	p := usePlace{stack: 1, part: partOther}
	lower := strings.ToLower(name)
	words := strings.FieldsFunc(lower, func(r rune) bool { return r == '.' || r == '/' })
	for _, w := range words {
		if w == "encoder" || w == "visual" || strings.HasPrefix(w, "vision") || strings.HasPrefix(w, "audio") {
			p.stack = 0
			break
		}
	}
	at := 0
	for i, w := range words {
		at += len(w)
		// The first number after a word is the layer's: "model.layers.12.mlp.experts.3".
		if i > 0 && isNumber(w) {
			p.part, p.layer = partLayer, w
			p.prefix = lower[:at-len(w)+i]
			p.step = stepOf(words[i+1:])
			return p
		}
	}
	has := func(parts ...string) bool {
		for _, w := range words {
			for _, part := range parts {
				if strings.Contains(w, part) {
					return true
				}
			}
		}
		return false
	}
	is := func(parts ...string) bool {
		for _, part := range parts {
			if slices.Contains(words, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("lm_head", "embed_out", "classifier") || is("output", "head", "score"):
		p.part = partHead
	case is("shared"): // T5's encoder begins with it.
		p.part, p.stack = partEmbedding, 0
	case has("embed", "embd", "wte", "wpe"):
		p.part = partEmbedding
	case has("norm", "ln_f"):
		p.part = partNorm
	}
	return p
}

// stepOf ranks what is inside a layer by the words after its number.
func stepOf(words []string) int {
	rest := strings.Join(words, ".")
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(rest, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("input_layernorm", "ln_1", "attn_norm", "attention_norm", "self_attn_layer_norm", "layer.0.layer_norm"):
		return 0
	case has("ffn_norm", "post_attention", "ln_2", "final_layer_norm", "pre_feedforward"):
		return 2
	case has("post_feedforward", "post_ffw"):
		return 4
	case has("attn", "attention"):
		return 1
	case has("mlp", "ffn", "feed_forward", "fc1", "fc2", "densereludense", "moe", "expert"):
		return 3
	}
	return 2
}

func isNumber(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// compareDigits compares strings of decimal digits by their values, of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// CompareNatural compares strings as people do: runs of digits by their value, so that "layer.9" comes before "layer.10".
// It is a total order: strings that differ only in leading zeros are ordered by their bytes.
func CompareNatural(a, b string) int {
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		if !isDigit(a[i]) || !isDigit(b[j]) {
			if a[i] != b[j] {
				return cmp.Compare(a[i], b[j])
			}
			i++
			j++
			continue
		}
		x, y := digitsAt(a, i), digitsAt(b, j)
		if c := compareDigits(x, y); c != 0 {
			return c
		}
		i += len(x)
		j += len(y)
	}
	return cmp.Or(cmp.Compare(len(a)-i, len(b)-j), strings.Compare(a, b))
}

// digitsAt returns the digits of s from i on.
func digitsAt(s string, i int) string {
	j := i
	for j < len(s) && isDigit(s[j]) {
		j++
	}
	return s[i:j]
}
