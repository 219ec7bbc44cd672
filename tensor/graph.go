package tensor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Graph says what is computed from what: nodes are tensors by name, and each depends on its inputs. Nodes are kept in the
// order in which they were first named, which decides wherever the graph does not. The zero Graph is empty and ready for
// use. It is not safe for concurrent use.
type Graph struct {
	nodes []node
	index map[string]int
}

type node struct {
	name  string
	needs []int
	expr  Expr
}

// ErrCycle means that tensors depend on themselves. The error is a [*CycleError].
var ErrCycle = errors.New("dependency cycle")

// CycleError names a cycle.
type CycleError struct {
	// Path are the nodes of the cycle, each depending on the next and the last on the first.
	Path []string
}

// Error lists the cycle, or its beginning when it is long.
func (e *CycleError) Error() string {
	const most = 10
	path := append(slices.Clone(e.Path[:min(len(e.Path), most)]), "…")
	if len(e.Path) <= most {
		path[len(e.Path)] = e.Path[0]
	}
	return "dependency cycle: " + strings.Join(path, " needs ")
}

// Is reports whether target is ErrCycle.
func (e *CycleError) Is(target error) bool { return target == ErrCycle }

// Add says that output needs inputs. Both become nodes if they are none yet; needs that are there already stay, and
// the same one twice counts once. A cycle is reported by the methods that look at the whole.
func (g *Graph) Add(output string, inputs ...string) {
	o := g.node(output)
	for _, in := range inputs {
		if i := g.node(in); !slices.Contains(g.nodes[o].needs, i) {
			g.nodes[o].needs = append(g.nodes[o].needs, i)
		}
	}
}

// AddExpr is Add for a node that an einsum expression computes from its inputs. It fails, changing nothing, when the
// text is no expression or has another number of inputs.
func (g *Graph) AddExpr(output, text string, inputs ...string) error {
	x, err := ParseExpr(text)
	if err != nil {
		return err
	}
	if len(x.Inputs) != len(inputs) {
		err := fmt.Errorf("%s: %v has %d inputs, and there are %d", quoteShort(output), x, len(x.Inputs), len(inputs))
		return border("add to graph", err)
	}
	g.Add(output, inputs...)
	g.nodes[g.index[output]].expr = x
	return nil
}

func (g *Graph) node(name string) int {
	if i, ok := g.index[name]; ok {
		return i
	}
	if g.index == nil {
		g.index = make(map[string]int)
	}
	g.index[name] = len(g.nodes)
	g.nodes = append(g.nodes, node{name: name})
	return len(g.nodes) - 1
}

// Len returns the number of nodes.
func (g *Graph) Len() int { return len(g.nodes) }

// Expr returns the expression of a node, and whether it has one.
func (g *Graph) Expr(name string) (Expr, bool) {
	i, ok := g.index[name]
	if !ok || len(g.nodes[i].expr.Inputs) == 0 {
		return Expr{}, false
	}
	return g.nodes[i].expr, true
}

// Needs returns what a node depends on, in the order in which that was added; nothing for what is no node.
func (g *Graph) Needs(name string) []string {
	i, ok := g.index[name]
	if !ok {
		return nil
	}
	names := make([]string, len(g.nodes[i].needs))
	for k, n := range g.nodes[i].needs {
		names[k] = g.nodes[n].name
	}
	return names
}

// Order returns the nodes so that each comes after all that it needs: the order in which they can be computed, and in
// which their parts are to be fetched. It takes time in proportion to nodes and needs. It returns a [*CycleError]
// when there is no such order.
func (g *Graph) Order() ([]string, error) {
	order, err := g.order()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(order))
	for i, n := range order {
		names[i] = g.nodes[n].name
	}
	return names, nil
}

// order walks depth first, with a stack of its own because graphs may be deep.
func (g *Graph) order() ([]int, error) {
	const fresh, open, done = 0, 1, 2
	state := make([]uint8, len(g.nodes))
	order := make([]int, 0, len(g.nodes))
	type frame struct{ node, next int }
	var stack []frame
	for root := range g.nodes {
		if state[root] != fresh {
			continue
		}
		stack = append(stack[:0], frame{node: root})
		state[root] = open
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			needs := g.nodes[top.node].needs
			if top.next == len(needs) {
				state[top.node] = done
				order = append(order, top.node)
				stack = stack[:len(stack)-1]
				continue
			}
			n := needs[top.next]
			top.next++
			switch state[n] {
			case open:
				e := &CycleError{}
				from := slices.IndexFunc(stack, func(f frame) bool { return f.node == n })
				for _, f := range stack[from:] {
					e.Path = append(e.Path, g.nodes[f.node].name)
				}
				return nil, border("order", e)
			case fresh:
				state[n] = open
				stack = append(stack, frame{node: n})
			}
		}
	}
	return order, nil
}

// Depths returns for each node the length of the longest chain of needs below it: 0 for a leaf. It takes time in
// proportion to nodes and needs, and returns a [*CycleError] when there is a cycle.
func (g *Graph) Depths() (map[string]int, error) {
	order, err := g.order()
	if err != nil {
		return nil, err
	}
	depth := make([]int, len(g.nodes))
	out := make(map[string]int, len(g.nodes))
	for _, n := range order {
		for _, k := range g.nodes[n].needs {
			depth[n] = max(depth[n], depth[k]+1)
		}
		out[g.nodes[n].name] = depth[n]
	}
	return out, nil
}

// Inherit returns how urgent each node of g is once every node has lent its urgency to what it needs: the most urgent
// of its own and those of all that depend on it, however far. Own gives a node's own urgency; compare is negative
// when its first argument is more urgent, as time.Time.Compare is for deadlines. It takes time in proportion to nodes
// and needs, and returns a [*CycleError] when there is a cycle.
func Inherit[U any](g *Graph, own func(name string) U, compare func(a, b U) int) (map[string]U, error) {
	u, _, err := inherit(g, own, compare)
	if err != nil {
		return nil, err
	}
	out := make(map[string]U, len(u))
	for i, v := range u {
		out[g.nodes[i].name] = v
	}
	return out, nil
}

func inherit[U any](g *Graph, own func(name string) U, compare func(a, b U) int) ([]U, []int, error) {
	order, err := g.order()
	if err != nil {
		return nil, nil, err
	}
	u := make([]U, len(g.nodes))
	for i := range g.nodes {
		u[i] = own(g.nodes[i].name)
	}
	for _, n := range slices.Backward(order) { // Dependents come first.
		for _, k := range g.nodes[n].needs {
			if compare(u[n], u[k]) < 0 {
				u[k] = u[n]
			}
		}
	}
	return u, order, nil
}

// Rank returns the nodes in the order in which to fetch them: by inherited urgency (see [Inherit]), and among equals
// so that each comes after what it needs. Since what a node needs is at least as urgent as the node, every node comes
// after all that it needs.
func Rank[U any](g *Graph, own func(name string) U, compare func(a, b U) int) ([]string, error) {
	u, order, err := inherit(g, own, compare)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(order, func(a, b int) int { return compare(u[a], u[b]) })
	names := make([]string, len(order))
	for i, n := range order {
		names[i] = g.nodes[n].name
	}
	return names, nil
}
