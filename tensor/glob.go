package tensor

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Pattern is a compiled pattern over tensor names; see [ParsePattern]. It is immutable and safe for concurrent use.
type Pattern struct {
	text    string
	literal string // what every match begins with
	prog    []step
}

// A pattern is compiled to steps that are tried from a place in the program and a place in the name. Each such pair
// is tried once, so a match takes time in proportion to their product and never more.
type step struct {
	op   stepOp
	r    rune     // stepRune
	set  []span32 // stepClass, inclusive
	not  bool     // stepClass: anything but the set
	nums []string // stepNumber: pairs of bounds, inclusive
	x, y int      // stepSplit: where to go on
}

type stepOp uint8

const (
	stepRune   stepOp = iota // that character
	stepAny                  // any character
	stepClass                // one character of a set
	stepNumber               // one whole decimal number within bounds
	stepSplit                // go on at x, or else at y
	stepJump                 // go on at x
	stepMatch                // the end of the name
)

type span32 struct{ lo, hi rune }

const (
	maxPattern = 1 << 10 // bytes in a pattern
	maxBraces  = 8       // braces within braces
)

// ParsePattern compiles a pattern. It matches whole names, and its grammar is:
//
//	?        any one character
//	*        any number of any characters, dots included
//	[0-15]   a whole decimal number from 0 to 15: digits with no digit before or after. Leading zeros do not
//	         count. Lists are allowed: [0-3,8,12-15].
//	[a-z_]   one character of the set; [!a-z] or [^a-z] one that is not in it. A bracket of nothing but digits,
//	         '-' and ',' is never a set.
//	{a,b*}   one of the alternatives, which are patterns, possibly empty; braces nest
//	\x       the character x itself
//
// Everything else stands for itself. So 'model.layers.[0-7].*' are the first eight layers, and '{model,lm_head}.*'
// the model without adapters. The error wraps [ErrBadPattern] and names the character at fault, counted in bytes from
// 0.
func ParsePattern(text string) (*Pattern, error) {
	if len(text) > maxPattern {
		return nil, border("parse pattern", fmt.Errorf("%w: %d bytes, more than %d", ErrBadPattern, len(text), maxPattern))
	}
	p := &parser{text: text}
	if err := p.sequence(0); err != nil {
		return nil, border("parse pattern", err)
	}
	p.add(step{op: stepMatch})
	pat := &Pattern{text: text, prog: p.prog}
	var lit strings.Builder
	for _, s := range p.prog {
		if s.op != stepRune {
			break
		}
		lit.WriteRune(s.r)
	}
	pat.literal = lit.String()
	return pat, nil
}

// String returns the pattern as it was written.
func (p *Pattern) String() string { return p.text }

// Match reports whether the pattern matches the whole of name.
func (p *Pattern) Match(name string) bool {
	if !strings.HasPrefix(name, p.literal) {
		return false
	}
	ok, _ := p.run(name)
	return ok
}

// run matches, and returns how many bytes of name some prefix of the pattern accounts for.
func (p *Pattern) run(name string) (ok bool, reach int) {
	type place struct{ pc, at int }
	seen := make([]uint64, (len(p.prog)*(len(name)+1)+63)/64)
	todo := []place{{0, 0}}
	push := func(pc, at int) {
		i := pc*(len(name)+1) + at
		if seen[i/64]&(1<<(i%64)) == 0 {
			seen[i/64] |= 1 << (i % 64)
			todo = append(todo, place{pc, at})
		}
	}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		s := &p.prog[at.pc]
		reach = max(reach, at.at)
		switch s.op {
		case stepMatch:
			if at.at == len(name) {
				return true, reach
			}
			continue
		case stepJump:
			push(s.x, at.at)
			continue
		case stepSplit:
			push(s.y, at.at)
			push(s.x, at.at)
			continue
		}
		if at.at == len(name) {
			continue
		}
		if s.op == stepNumber {
			n := digitsAt(name, at.at)
			if n != "" && (at.at == 0 || !isDigit(name[at.at-1])) && inNumbers(s.nums, n) {
				push(at.pc+1, at.at+len(n))
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(name[at.at:])
		if s.op == stepAny || s.op == stepRune && r == s.r || s.op == stepClass && inSet(s.set, r) != s.not {
			push(at.pc+1, at.at+n)
		}
	}
	return false, reach
}

func inNumbers(bounds []string, n string) bool {
	for i := 0; i < len(bounds); i += 2 {
		if compareDigits(bounds[i], n) <= 0 && compareDigits(n, bounds[i+1]) <= 0 {
			return true
		}
	}
	return false
}

func inSet(set []span32, r rune) bool {
	for _, s := range set {
		if s.lo <= r && r <= s.hi {
			return true
		}
	}
	return false
}

// parser compiles a pattern.
type parser struct {
	text string
	i    int
	prog []step
}

func (p *parser) add(s step) int {
	p.prog = append(p.prog, s)
	return len(p.prog) - 1
}

func (p *parser) fail(at int, reason string, args ...any) error {
	return fmt.Errorf("%w %q: character %d: %s", ErrBadPattern, p.text, at, fmt.Sprintf(reason, args...))
}

// sequence compiles up to the end, or within braces up to ',' or '}'.
func (p *parser) sequence(depth int) error {
	for p.i < len(p.text) {
		at := p.i
		r, n := utf8.DecodeRuneInString(p.text[p.i:])
		if r == utf8.RuneError && n == 1 {
			return p.fail(at, "not UTF-8")
		}
		if depth > 0 && (r == ',' || r == '}') {
			return nil
		}
		p.i += n
		switch r {
		case '*':
			// L: split L+1, L+3; any; jump L.
			l := p.add(step{op: stepSplit, x: len(p.prog) + 1, y: len(p.prog) + 3})
			p.add(step{op: stepAny})
			p.add(step{op: stepJump, x: l})
		case '?':
			p.add(step{op: stepAny})
		case '[':
			if err := p.bracket(at); err != nil {
				return err
			}
		case '{':
			if err := p.braces(at, depth+1); err != nil {
				return err
			}
		case '}', ']':
			return p.fail(at, "%q without its beginning; write \\%c for the character", r, r)
		case '\\':
			c, n := utf8.DecodeRuneInString(p.text[p.i:])
			if n == 0 || c == utf8.RuneError && n == 1 {
				return p.fail(at, "nothing after the backslash")
			}
			p.i += n
			p.add(step{op: stepRune, r: c})
		default:
			p.add(step{op: stepRune, r: r})
		}
	}
	return nil
}

func (p *parser) braces(at, depth int) error {
	if depth > maxBraces {
		return p.fail(at, "braces nested more than %d deep", maxBraces)
	}
	var ends []int
	for {
		split := p.add(step{op: stepSplit, x: len(p.prog) + 1})
		if err := p.sequence(depth); err != nil {
			return err
		}
		if p.i == len(p.text) {
			return p.fail(at, "'{' without its end")
		}
		p.i++
		if p.text[p.i-1] == '}' {
			p.prog[split] = step{op: stepJump, x: split + 1} // The last alternative has no other.
			break
		}
		ends = append(ends, p.add(step{op: stepJump}))
		p.prog[split].y = len(p.prog)
	}
	for _, e := range ends {
		p.prog[e].x = len(p.prog)
	}
	return nil
}

func (p *parser) bracket(at int) error {
	end := -1
	for j := p.i; j < len(p.text); j++ {
		if p.text[j] == '\\' {
			j++
		} else if p.text[j] == ']' {
			end = j
			break
		}
	}
	if end < 0 {
		return p.fail(at, "'[' without its end")
	}
	body := p.text[p.i:end]
	from := p.i
	p.i = end + 1
	if strings.Trim(body, "0123456789-,") == "" {
		return p.numbers(body, from)
	}
	s := step{op: stepClass}
	if body[0] == '!' || body[0] == '^' {
		s.not = true
		body = body[1:]
		from++
	}
	type char struct {
		r       rune
		escaped bool
	}
	var chars []char
	for i := 0; i < len(body); {
		r, n := utf8.DecodeRuneInString(body[i:])
		escaped := r == '\\'
		if escaped {
			i += n
			r, n = utf8.DecodeRuneInString(body[i:])
		}
		if r == utf8.RuneError && n <= 1 {
			return p.fail(from+i, "not UTF-8")
		}
		chars = append(chars, char{r, escaped})
		i += n
	}
	if len(chars) == 0 {
		return p.fail(at, "an empty set")
	}
	for i := 0; i < len(chars); i++ {
		lo, hi := chars[i].r, chars[i].r
		if i+2 < len(chars) && chars[i+1].r == '-' && !chars[i+1].escaped {
			hi = chars[i+2].r
			i += 2
		}
		if hi < lo {
			return p.fail(at, "%c-%c is empty", lo, hi)
		}
		s.set = append(s.set, span32{lo, hi})
	}
	p.add(s)
	return nil
}

func (p *parser) numbers(body string, from int) error {
	s := step{op: stepNumber}
	for part := range strings.SplitSeq(body, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		if !ranged {
			hi = lo
		}
		if !isNumber(lo) || !isNumber(hi) {
			return p.fail(from, "%q is neither a number nor a range of numbers", part)
		}
		if compareDigits(lo, hi) > 0 {
			return p.fail(from, "%s is empty", part)
		}
		s.nums = append(s.nums, lo, hi)
	}
	p.add(s)
	return nil
}

// editDistance is the number of characters to insert, delete or change to make a into b, on the first 256 bytes.
func editDistance(a, b string) int {
	const most = 256
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	var row [most + 1]int
	for j := range len(b) + 1 {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
