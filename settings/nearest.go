package settings

import "strings"

// Nearest returns which of the known names is most like one that is not known, if any is like it at all: a third of the letters
// may differ, or the name is the beginning or the end of one.
func Nearest(name string, known []string) (best string, ok bool) {
	least := len(name)/3 + 1
	low := strings.ToLower(name)
	for _, k := range known {
		d := Distance(low, strings.ToLower(k))
		if d > max(1, len(name)/3) {
			if len(name) < 3 || !strings.HasPrefix(k, low) && !strings.HasSuffix(k, low) {
				continue
			}
			d = len(name)/3 + 1
		}
		if !ok || d < least {
			best, least, ok = k, d, true
		}
	}
	return best, ok
}

// Distance counts the letters to insert, delete, replace or swap with their neighbours to make a into b.
func Distance(a, b string) int {
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
