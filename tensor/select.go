package tensor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dray"
)

// NoMatchError says that a pattern matched no name. It matches [dray.ErrNotFound] with [errors.Is].
type NoMatchError struct {
	// Pattern is the pattern as it was written.
	Pattern string
	// Near are the names that come nearest to it, at most five, the nearest first.
	Near []string
}

// Error names the pattern and the names near it.
func (e *NoMatchError) Error() string {
	if len(e.Near) == 0 {
		return fmt.Sprintf("no tensor matches %q: there are none", e.Pattern)
	}
	quoted := make([]string, len(e.Near))
	for i, n := range e.Near {
		quoted[i] = quoteShort(n)
	}
	return fmt.Sprintf("no tensor matches %q; the nearest are %s", e.Pattern, strings.Join(quoted, ", "))
}

// Is reports whether target is dray.ErrNotFound.
func (e *NoMatchError) Is(target error) bool { return target == dray.ErrNotFound }

// Select returns the indexes of the names that at least one pattern matches, each once and in the order of names. No
// patterns select everything. It returns an error wrapping [ErrBadPattern], or a [*NoMatchError] for the first
// pattern that matches nothing: a typing error must not pass for an empty selection.
func Select(names, patterns []string) ([]int, error) {
	picked := make([]bool, len(names))
	for _, text := range patterns {
		p, err := ParsePattern(text)
		if err != nil {
			return nil, err
		}
		any := false
		for i, n := range names {
			if (!picked[i] || !any) && p.Match(n) {
				picked[i], any = true, true
			}
		}
		if !any {
			return nil, border("select", &NoMatchError{Pattern: text, Near: near(p, names)})
		}
	}
	var chosen []int
	for i := range names {
		if picked[i] || len(patterns) == 0 {
			chosen = append(chosen, i)
		}
	}
	return chosen, nil
}

// near returns the names nearest to a pattern that matches none: they follow it far, and few changes make one the other.
func near(p *Pattern, names []string) []string {
	const look, most = 256, 5
	type candidate struct {
		name            string
		reach, distance int
	}
	all := make([]candidate, len(names))
	for i, n := range names {
		_, reach := p.run(n[:min(len(n), 512)])
		all[i] = candidate{name: n, reach: reach}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.reach, a.reach) })
	all = all[:min(len(all), look)]
	for i := range all {
		all[i].distance = editDistance(p.text, all[i].name)
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.distance-2*a.reach, b.distance-2*b.reach) })
	var out []string
	for _, c := range all[:min(len(all), most)] {
		out = append(out, c.name)
	}
	return out
}
