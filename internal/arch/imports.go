package arch

import (
	"slices"
	"strings"
)

// checkImports applies the table. Tests may import more: only the product has a shape.
func (c *checker) checkImports(s *source) {
	for _, spec := range s.file.Imports {
		p := importPath(spec)
		switch {
		case p == "C":
			c.refuse(s, spec.Pos(), "Use a Go library, or assembly", "cgo: the product is one static binary")
		case spec.Name != nil && spec.Name.Name == ".":
			c.refuse(s, spec.Pos(), "Import it by its name", "a dot import hides where names come from, from readers and from these checks")
		}
		from, known := c.rooms[s.room]
		if s.test || !known {
			continue // A directory without a row is refused as a whole.
		}
		if p == module || strings.HasPrefix(p, module+"/") {
			to := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
			if to == "" {
				to = "."
			}
			if why := c.mayImport(from, to); why != "" {
				c.refuse(s, spec.Pos(), "Take what is needed as an argument or an interface, or move the code to a room that may import it", "%s", why)
			}
			continue
		}
		if !strings.Contains(strings.SplitN(p, "/", 2)[0], ".") || from.tests {
			continue // The standard library; or a room for tests, which may use any library.
		}
		if why := mayUse(from, p); why != "" {
			c.refuse(s, spec.Pos(), "Go through the room that owns it, or change its line in internal/arch/table.go with the reason", "%s", why)
		}
	}
}

// mayImport returns why a room may not import another, or "".
func (c *checker) mayImport(from room, to string) string {
	target, known := c.rooms[to]
	switch {
	case !known:
		return describe(from.path) + " imports " + describe(to) + ", which has no row in the table of rooms"
	case target.tests && !from.tests:
		return describe(to) + " is for tests, and this is product code"
	case slices.Contains(from.imports, to), slices.Contains(from.imports, "*"):
		return ""
	case len(from.imports) == 0:
		return describe(from.path) + " may import no other room, but imports " + describe(to)
	}
	names := make([]string, len(from.imports))
	for i, p := range from.imports {
		names[i] = describe(p)
	}
	return describe(from.path) + " may import " + strings.Join(names, ", ") + ", but not " + describe(to)
}

// mayUse returns why a room may not import a package of a library, or "".
func mayUse(from room, p string) string {
	best := library{prefix: ""}
	for _, l := range libraries {
		if (p == l.prefix || strings.HasPrefix(p, l.prefix+"/")) && len(l.prefix) > len(best.prefix) {
			best = l
		}
	}
	switch {
	case best.prefix == "":
		return p + " is not in the list of libraries: a dependency is a decision"
	case slices.Contains(best.rooms, "*"), slices.Contains(best.rooms, from.path):
		return ""
	case len(best.rooms) == 0:
		return p + " is for tests only: " + best.why
	}
	return p + " is for " + strings.Join(best.rooms, ", ") + " only: " + best.why
}

// describe returns the name of a room as people say it.
func describe(p string) string {
	if p == "." {
		return module
	}
	return p
}
