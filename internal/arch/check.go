package arch

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// module is the import path of the root package.
const module = "dray"

// Refusal is one place that breaks a rule.
type Refusal struct {
	// File is the path below the root that was checked, and Line the line in it, from 1.
	File string
	Line int
	// Why is the rule and its reason; Do is what to do instead.
	Why, Do string
}

// String returns the refusal as "FILE:LINE: WHY. WHAT TO DO."
func (r Refusal) String() string { return fmt.Sprintf("%s:%d: %s. %s.", r.File, r.Line, r.Why, r.Do) }

// source is one parsed file.
type source struct {
	path  string // Below the root.
	room  string // Its directory.
	text  []byte
	fset  *token.FileSet
	file  *ast.File
	test  bool              // Whether its name ends in _test.go.
	names map[string]string // Import path by the name that it has in this file.
}

// checker collects what is refused.
type checker struct {
	rooms    map[string]room
	refusals []Refusal
}

// Check reads every Go file below root, which must be the root of the module, and returns what it refuses, in order of
// file and line. Nested modules, testdata and hidden directories are left out. The error is one of reading or parsing.
func Check(root fs.FS) ([]Refusal, error) {
	files, err := load(root)
	if err != nil {
		return nil, err
	}
	c := &checker{rooms: make(map[string]room)}
	for _, r := range rooms {
		c.rooms[r.path] = r
	}
	packages := make(map[string][]*source)
	for _, s := range files {
		packages[s.room] = append(packages[s.room], s)
		c.checkFile(s)
	}
	for dir, sources := range packages {
		c.checkPackage(dir, sources)
	}
	slices.SortFunc(c.refusals, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Why, b.Why))
	})
	return slices.Compact(c.refusals), nil
}

// load parses the tree.
func load(root fs.FS) ([]*source, error) {
	var files []*source
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p == "." {
				return nil
			}
			if name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(p, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
			return nil
		}
		text, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		s := &source{path: p, room: path.Dir(p), text: text, fset: token.NewFileSet(), test: strings.HasSuffix(name, "_test.go")}
		if s.file, err = parser.ParseFile(s.fset, p, text, parser.ParseComments); err != nil {
			return err
		}
		if neverBuilt(s.file) {
			return nil
		}
		s.names = importNames(s.file)
		files = append(files, s)
		return nil
	})
	return files, err
}

// neverBuilt reports whether a file's build line can only be met with the tag "ignore" or "deps", which no product sets: the
// file is not part of any package then.
func neverBuilt(f *ast.File) bool {
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			break
		}
		for _, line := range group.List {
			if expr, err := constraint.Parse(line.Text); err == nil && !satisfiable(expr) {
				return true
			}
		}
	}
	return false
}

// satisfiable tries all values of the tags in a build line; there are a handful.
func satisfiable(expr constraint.Expr) bool {
	var tags []string
	var collect func(constraint.Expr)
	collect = func(e constraint.Expr) {
		switch e := e.(type) {
		case *constraint.AndExpr:
			collect(e.X)
			collect(e.Y)
		case *constraint.OrExpr:
			collect(e.X)
			collect(e.Y)
		case *constraint.NotExpr:
			collect(e.X)
		case *constraint.TagExpr:
			if e.Tag != "ignore" && e.Tag != "deps" && !slices.Contains(tags, e.Tag) {
				tags = append(tags, e.Tag)
			}
		}
	}
	collect(expr)
	for values := range 1 << len(tags) {
		if expr.Eval(func(tag string) bool { i := slices.Index(tags, tag); return i >= 0 && values>>i&1 == 1 }) {
			return true
		}
	}
	return false
}

// importNames returns the import path behind each package name in f. Without types, the last part of the path that is not
// a version is taken for the name, which is so for all packages that the rules name.
func importNames(f *ast.File) map[string]string {
	names := make(map[string]string)
	for _, spec := range f.Imports {
		p := importPath(spec)
		name := path.Base(p)
		if len(name) > 1 && name[0] == 'v' && strings.Trim(name[1:], "0123456789") == "" {
			name = path.Base(path.Dir(p))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	}
	return names
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value
	}
	return p
}

func (c *checker) refuse(s *source, at token.Pos, do, why string, args ...any) {
	c.refusals = append(c.refusals, Refusal{
		File: s.path, Line: s.fset.Position(at).Line, Why: fmt.Sprintf(why, args...), Do: do,
	})
}

// checkPackage applies the rules about a package as a whole.
func (c *checker) checkPackage(dir string, sources []*source) {
	first := sources[0]
	if _, ok := c.rooms[dir]; !ok {
		c.refuse(first, first.file.Package,
			"Put the code in the room whose theory it shares, or add a row to internal/arch/table.go and a dated RFC to docs/rfc",
			"directory %s has no row in the table of rooms", dir)
	}
	// A package that consists of tests says what it is in one of them.
	if slices.ContainsFunc(sources, func(s *source) bool { return !s.test }) {
		sources = slices.DeleteFunc(slices.Clone(sources), func(s *source) bool { return s.test })
		first = sources[0]
	}
	name := first.file.Name.Name
	documented := slices.ContainsFunc(sources, func(s *source) bool {
		doc := s.file.Doc.Text()
		return doc != "" && (name == "main" || strings.HasPrefix(doc, "Package "))
	})
	if !documented {
		c.refuse(first, first.file.Package,
			"Add one above the package clause of doc.go or the main file: what it is, its terms, what it does not do",
			"package %s has no doc comment, so a newcomer cannot tell what it is for", name)
	}
	if w := emptyWord(strings.TrimSuffix(name, "_test"), true); w != "" {
		c.refuse(first, first.file.Name.Pos(), renameIt, "package name %s has %q in it, which says nothing about what it is", name, w)
	}
}

const renameIt = "Name it after what it does or holds"

// checkFile applies the rules about one file.
func (c *checker) checkFile(s *source) {
	if n := bytes.Count(s.text, []byte("\n")); n > maxLines {
		c.refuse(s, s.file.Package, "Split it by concept", "the file has %d lines, and nobody reads more than %d", n, maxLines)
	}
	stem := strings.TrimSuffix(strings.TrimSuffix(path.Base(s.path), ".go"), "_test")
	if w := emptyWord(stem, true); w != "" {
		c.refuse(s, s.file.Package, renameIt, "file name %s has %q in it, which says nothing about what it is", path.Base(s.path), w)
	}
	c.checkImports(s)
	c.checkNames(s)
	c.checkHabits(s)
	if c.rooms[s.room].pure && !s.test {
		c.checkPurity(s)
	}
}
