// Package scripttest runs golden scripts: conversations with a pure package, as text, in which what came of each command stands
// where the next reader looks for it.
//
// # Terms
//
// A script is a file below testdata. It is run, and must come out of that as it was; go test with -update rewrites it, and the
// difference is to be read as prose. A paragraph of a script has comments (#), commands, a line ----, and below the line what came
// of the commands.
//
// # What it does not do
//
// It knows no commands: those are the package's that is tested.
package scripttest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the scripts in testdata")

// Run runs each of the files that match a pattern as a test of its own. What play makes of the file's text must be that text.
func Run(t *testing.T, pattern string, play func(t *testing.T, text string) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if got == string(text) {
				return
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s: it comes out otherwise (rewrite with -update):\n%s", file, firstDifference(string(text), got))
		})
	}
}

// Paragraphs executes the commands of every paragraph and returns the text with what they left in out below the line. Command is
// called with the words of each.
func Paragraphs(text string, out *strings.Builder, command func(words []string)) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		if i > 0 {
			b.WriteString("\n")
		}
		out.Reset()
		commands := 0
		for line := range strings.SplitSeq(paragraph, "\n") {
			if line == "----" {
				break
			}
			b.WriteString(line + "\n")
			if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
				command(words)
				commands++
			}
		}
		if commands > 0 {
			b.WriteString("----\n" + out.String())
		}
	}
	return b.String()
}

// firstDifference shows the paragraphs in which two texts part.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n\n"), strings.Split(got, "\n\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("want:\n%s\n\ngot:\n%s", w[i], g[i])
		}
	}
	return fmt.Sprintf("%d paragraphs, want %d", len(g), len(w))
}
