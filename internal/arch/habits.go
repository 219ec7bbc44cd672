package arch

import (
	"go/ast"
	"path"
	"strings"
	"unicode"
)

// checkPurity refuses whatever waits or depends on the machine.
func (c *checker) checkPurity(s *source) {
	room := describe(s.room)
	for _, spec := range s.file.Imports {
		p := importPath(spec)
		for q := p; q != "."; q = path.Dir(q) {
			if why, ok := impureImports[q]; ok {
				c.refuse(s, spec.Pos(), "Leave it to the driver: node, sim or cmd", "%s is pure and imports %s: %s", room, p, why)
				break
			}
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			c.refuse(s, n.Pos(), "Return what is to be done and let the driver do it", "%s is pure and starts a goroutine", room)
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "make" && len(n.Args) > 0 {
				if _, ok := n.Args[0].(*ast.ChanType); ok {
					c.refuse(s, n.Pos(), "Keep a slice, and return what became of it", "%s is pure and makes a channel", room)
				}
			}
		case *ast.SelectorExpr:
			switch p, name := s.qualified(n); {
			case impureCalls[p][name]:
				c.refuse(s, n.Pos(), "Take now as an argument and return the next deadline", "%s is pure and uses %s.%s", room, p, name)
			case (p == "math/rand" || p == "math/rand/v2") && !pureRand[name]:
				c.refuse(s, n.Pos(), "Take a *rand.Rand, so that a run can be repeated", "%s is pure and uses the global random source through rand.%s", room, name)
			}
		}
		return true
	})
}

// checkHabits refuses what is refused everywhere.
func (c *checker) checkHabits(s *source) {
	var bubbles []ast.Node // Where time is virtual.
	testers := set("t", "b", "f", "tb")
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
				if p, name := s.qualified(sel); p == "testing/synctest" && name == "Test" {
					bubbles = append(bubbles, n)
				}
			}
		case *ast.FuncDecl:
			if strings.Contains(n.Doc.Text(), "synctest bubble") {
				bubbles = append(bubbles, n)
			}
		case *ast.Field:
			if s.isTester(n.Type) {
				for _, id := range n.Names {
					testers[id.Name] = true
				}
			}
		}
		return true
	})
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if !c.rooms[s.room].pure || s.test {
				c.refuse(s, n.Pos(), "Use wg.Go on a sync.WaitGroup that a Close or a return waits for",
					"a bare go statement: nobody is sure to wait for the goroutine")
			}
		case *ast.SelectorExpr:
			p, name := s.qualified(n)
			if p == "time" && name == "Sleep" && !inside(n, bubbles) && (s.test || !c.rooms[s.room].pure) {
				c.refuse(s, n.Pos(), sleepDo(s.test), "time.Sleep: it is too short on a slow machine and too long on all others")
			}
			if id, ok := n.X.(*ast.Ident); ok && testers[id.Name] && (s.test || c.rooms[s.room].tests) && skips[n.Sel.Name] {
				c.refuse(s, n.Pos(), "Make the test work everywhere, or choose what it covers by what is there and t.Log that",
					"%s.%s: a skipped test passes for ever without looking", id.Name, n.Sel.Name)
			}
		}
		return true
	})
}

var skips = set("Skip", "Skipf", "SkipNow")

func sleepDo(test bool) string {
	if test {
		return "Wait for the event itself, or run the test in synctest.Test (a function that only bubbles call says 'synctest bubble' in its comment)"
	}
	return "Wait for the event itself, or for a time.Timer and the end of the context"
}

// qualified returns the import path and the name that a selector such as time.Now means, or "" when it is not one.
func (s *source) qualified(n *ast.SelectorExpr) (pkg, name string) {
	id, ok := n.X.(*ast.Ident)
	if !ok || id.Obj != nil { // An identifier with an object is declared in this file, and hides the import.
		return "", ""
	}
	return s.names[id.Name], n.Sel.Name
}

// isTester reports whether a type is *testing.T, *testing.B, *testing.F or testing.TB.
func (s *source) isTester(t ast.Expr) bool {
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	sel, ok := t.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	p, _ := s.qualified(sel)
	return p == "testing"
}

func inside(n ast.Node, regions []ast.Node) bool {
	for _, r := range regions {
		if r.Pos() <= n.Pos() && n.End() <= r.End() {
			return true
		}
	}
	return false
}

// checkNames refuses empty words in what a file exports.
func (c *checker) checkNames(s *source) {
	refuse := func(id *ast.Ident) {
		if w := emptyWord(id.Name, false); w != "" && id.IsExported() {
			c.refuse(s, id.Pos(), renameIt, "name %s has %q in it, which says nothing about what it is", id.Name, w)
		}
	}
	for _, decl := range s.file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			refuse(d.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						refuse(id)
					}
				case *ast.TypeSpec:
					refuse(spec.Name)
					for _, id := range members(spec.Type) {
						refuse(id)
					}
				}
			}
		}
	}
}

// members returns the names of a struct's fields or an interface's methods.
func members(t ast.Expr) (ids []*ast.Ident) {
	var fields *ast.FieldList
	switch t := t.(type) {
	case *ast.StructType:
		fields = t.Fields
	case *ast.InterfaceType:
		fields = t.Methods
	default:
		return nil
	}
	for _, f := range fields.List {
		ids = append(ids, f.Names...)
	}
	return ids
}

// emptyWord returns the first word of a name that says nothing, or "". Words end at underscores and capitals, so Base58 and
// Simple are fine and BaseStore is not. In the names of packages and files, which run words together, a word also counts
// at either end.
func emptyWord(name string, joined bool) string {
	for _, w := range words(name) {
		if emptyWords[w] {
			return w
		}
		if !joined {
			continue
		}
		for _, part := range []string{"utils", "util", "helpers", "helper", "managers", "manager"} {
			if strings.HasPrefix(w, part) || strings.HasSuffix(w, part) {
				return part
			}
		}
		if strings.HasSuffix(w, "impl") {
			return "impl"
		}
	}
	return ""
}

// words splits a name at underscores, hyphens and capitals and returns the parts in lower case.
func words(name string) (parts []string) {
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			parts = append(parts, word.String())
			word.Reset()
		}
	}
	runes := []rune(name)
	for i, r := range runes {
		switch {
		case r == '_' || r == '-' || r == '.':
			end()
			continue
		case unicode.IsUpper(r) && (i == 0 || !unicode.IsUpper(runes[i-1]) || (i+1 < len(runes) && unicode.IsLower(runes[i+1]))):
			end()
		}
		word.WriteRune(unicode.ToLower(r))
	}
	end()
	return parts
}
