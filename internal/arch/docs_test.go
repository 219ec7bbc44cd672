package arch

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	docTest   = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	docScript = regexp.MustCompile(`[\w-]+\.txtar`)
	docTarget = regexp.MustCompile("(?m)(?:`|^)make ([a-z][a-z0-9-]*)")
	docLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`)
	target    = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
)

// TestDocs: the tests, scripts, targets of make and pages that the documentation names are there.
func TestDocs(t *testing.T) {
	root := os.DirFS("../..")
	var pages []string
	there := make(map[string]bool) // tests, scripts and targets
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "out", "rfc", "changelog"}, d.Name()):
			return fs.SkipDir // not the project's, or of its day
		case strings.HasSuffix(name, ".txtar"):
			there[path.Base(name)] = true
		case strings.HasSuffix(name, ".md") && !strings.Contains(name, "testdata/"):
			pages = append(pages, name)
		case strings.HasSuffix(name, "_test.go"):
			for _, m := range testFunc.FindAllStringSubmatch(text(t, root, name), -1) {
				there[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range target.FindAllStringSubmatch(text(t, root, "Makefile"), -1) {
		there["make "+m[1]] = true
	}
	named := 0
	for _, page := range pages {
		says := text(t, root, page)
		names := append(docTest.FindAllString(says, -1), docScript.FindAllString(says, -1)...)
		for _, m := range docTarget.FindAllStringSubmatch(says, -1) {
			names = append(names, "make "+m[1])
		}
		for _, name := range names {
			named++
			if !there[name] {
				t.Errorf("%s names %s, which there is not", page, name)
			}
		}
		for _, m := range docLink.FindAllStringSubmatch(says, -1) {
			if !strings.Contains(m[1], "://") && !leads(t, root, page, m[1]) {
				t.Errorf("%s links to %s, which there is not", page, m[1])
			}
		}
	}
	if len(pages) < 20 || named < 100 {
		t.Errorf("%d pages with %d names were read", len(pages), named)
	}
}

// leads reports whether a link of a page goes to a file, and to a heading of it if it names one.
func leads(t *testing.T, root fs.FS, page, link string) bool {
	file, anchor, _ := strings.Cut(link, "#")
	if file == "" {
		file = path.Base(page)
	}
	file = path.Join(path.Dir(page), file)
	if _, err := fs.Stat(root, file); err != nil || anchor == "" {
		return err == nil
	}
	for _, m := range heading.FindAllStringSubmatch(text(t, root, file), -1) {
		plain := strings.Map(func(r rune) rune {
			if strings.ContainsRune("`.,:;?!()'/\"", r) {
				return -1
			}
			return r
		}, strings.ToLower(m[1]))
		if strings.ReplaceAll(plain, " ", "-") == anchor {
			return true
		}
	}
	return false
}

func text(t *testing.T, root fs.FS, name string) string {
	t.Helper()
	b, err := fs.ReadFile(root, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
