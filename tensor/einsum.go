package tensor

import (
	"fmt"
	"slices"
	"strings"
)

// Expr is an einsum expression such as "ij,jk->ik": what is computed from tensors whose axes are labelled by letters.
// It is immutable.
type Expr struct {
	// Inputs are the labels of each input's axes, and Output those of the result's, as letters.
	Inputs []string
	Output string
}

// ExprError says what is wrong with an expression and where. It is returned inside a [*dray.Error].
type ExprError struct {
	// Text is the expression and Offset the byte of it at fault.
	Text   string
	Offset int
	// Reason says what is wrong.
	Reason string
}

// Error returns the expression, the place and the reason.
func (e *ExprError) Error() string {
	return fmt.Sprintf("einsum %s: character %d: %s", quoteShort(e.Text), e.Offset, e.Reason)
}

const maxExpr = 4096 // bytes in an expression

// ParseExpr reads an expression. Labels are the letters a to z and A to Z; spaces do not count; an input or the
// output without labels is a scalar. Without "->" the output is, as numpy has it, the labels that occur once, in
// alphabetical order. Ellipses are not supported. The error is an [*ExprError].
func ParseExpr(text string) (Expr, error) {
	fail := func(at int, reason string, args ...any) (Expr, error) {
		return Expr{}, border("parse einsum", &ExprError{Text: text, Offset: at, Reason: fmt.Sprintf(reason, args...)})
	}
	if len(text) > maxExpr {
		return fail(0, "%d bytes, more than %d", len(text), maxExpr)
	}
	var x Expr
	var labels []byte
	arrow := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case isLetter(c):
			if arrow && slices.Contains(labels, c) {
				return fail(i, "%q occurs twice in the output", c)
			}
			if arrow && !slices.ContainsFunc(x.Inputs, func(in string) bool { return strings.IndexByte(in, c) >= 0 }) {
				return fail(i, "%q is in the output and in no input", c)
			}
			labels = append(labels, c)
		case c == ' ':
		case c == ',' && arrow:
			return fail(i, "there is one output")
		case c == ',':
			x.Inputs = append(x.Inputs, string(labels))
			labels = labels[:0]
		case strings.HasPrefix(text[i:], "->"):
			if arrow {
				return fail(i, "a second arrow")
			}
			arrow = true
			x.Inputs = append(x.Inputs, string(labels))
			labels = labels[:0]
			i++
		case c == '.':
			return fail(i, "ellipses are not supported")
		default:
			return fail(i, "%q is neither a letter, ',' nor \"->\"", c)
		}
	}
	if arrow {
		x.Output = string(labels)
		return x, nil
	}
	x.Inputs = append(x.Inputs, string(labels))
	all := []byte(strings.Join(x.Inputs, ""))
	slices.Sort(all)
	for _, c := range all {
		if i := slices.Index(all, c); i == len(all)-1 || all[i+1] != c {
			x.Output += string(c)
		}
	}
	return x, nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// String returns the expression with its output spelled out.
func (x Expr) String() string { return strings.Join(x.Inputs, ",") + "->" + x.Output }

// inputsWith counts the inputs that have the label c.
func (x Expr) inputsWith(c byte) int {
	n := 0
	for _, in := range x.Inputs {
		if strings.IndexByte(in, c) >= 0 {
			n++
		}
	}
	return n
}

// labels returns the labels for which keep is true, each once, in the order of the inputs.
func (x Expr) labels(keep func(c byte, inputs int) bool) string {
	var out []byte
	for _, in := range x.Inputs {
		for _, c := range []byte(in) {
			if !slices.Contains(out, c) && keep(c, x.inputsWith(c)) {
				out = append(out, c)
			}
		}
	}
	return string(out)
}

func (x Expr) kept(c byte) bool { return strings.IndexByte(x.Output, c) >= 0 }

// Shared returns the labels that more than one input has.
func (x Expr) Shared() string { return x.labels(func(_ byte, n int) bool { return n > 1 }) }

// Reduced returns the labels that are summed over: those of the inputs that the output lacks. A reduction need not lower
// the number of axes: "ij,jk->ik" reduces j.
func (x Expr) Reduced() string { return x.labels(func(c byte, _ int) bool { return !x.kept(c) }) }

// Contracted returns the labels that are summed over and that more than one input has.
func (x Expr) Contracted() string {
	return x.labels(func(c byte, n int) bool { return n > 1 && !x.kept(c) })
}

// Transpose reports whether the expression does nothing but reorder the axes of one input, which it must change.
func (x Expr) Transpose() bool {
	if len(x.Inputs) != 1 || len(x.Inputs[0]) != len(x.Output) || x.Inputs[0] == x.Output {
		return false
	}
	in, out := []byte(x.Inputs[0]), []byte(x.Output)
	slices.Sort(in)
	slices.Sort(out)
	return slices.Equal(in, out)
}

// Shape returns the shape of the result for inputs of the given shapes. It fails when there are too few or many, when
// one has another number of axes than labels, and when a label stands for different lengths.
func (x Expr) Shape(inputs ...[]int64) ([]int64, error) {
	if len(inputs) != len(x.Inputs) {
		return nil, border("einsum", fmt.Errorf("%v of %d inputs", x, len(inputs)))
	}
	length := make(map[byte]int64)
	for i, in := range x.Inputs {
		if len(in) != len(inputs[i]) {
			return nil, border("einsum", fmt.Errorf("%v: input %d has the shape %v", x, i, inputs[i]))
		}
		for a := range len(in) {
			n, ok := length[in[a]]
			if ok && n != inputs[i][a] {
				return nil, border("einsum", fmt.Errorf("%v: %c is %d and %d", x, in[a], n, inputs[i][a]))
			}
			length[in[a]] = inputs[i][a]
		}
	}
	out := make([]int64, len(x.Output))
	for a := range len(x.Output) {
		out[a] = length[x.Output[a]]
	}
	return out, nil
}
