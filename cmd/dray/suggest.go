package main

import (
	"fmt"
	"slices"
	"strings"

	"dray/settings"
)

// suggest returns the end of a complaint about an unknown name: the nearest of the known ones, else otherwise.
func suggest(name string, known []string, otherwise string) string {
	type near struct {
		name     string
		distance int
	}
	var best []near
	for _, k := range known {
		d := settings.Distance(strings.ToLower(name), strings.ToLower(k))
		if d <= max(1, len(name)/3) || len(name) > 2 && strings.HasPrefix(k, name) {
			best = append(best, near{k, d})
		}
	}
	if len(best) == 0 {
		return "; " + otherwise
	}
	slices.SortStableFunc(best, func(a, b near) int { return a.distance - b.distance })
	return fmt.Sprintf("; did you mean %s?", best[0].name)
}
