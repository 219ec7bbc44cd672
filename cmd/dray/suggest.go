package main

import (
	"fmt"
	"slices"
	"strings"
)

// suggest returns the end of a complaint about an unknown name: the nearest of the known ones, else otherwise.
func suggest(name string, known []string, otherwise string) string {
	type near struct {
		name     string
		distance int
	}
	var best []near
	for _, k := range known {
		d := distance(strings.ToLower(name), strings.ToLower(k))
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

// distance counts the letters to insert, delete, replace or swap with their neighbours to make a into b.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			differ := 1
			if x[i-1] == y[j-1] {
				differ = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+differ)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(x)][len(y)]
}
