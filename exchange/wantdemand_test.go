package exchange

import "testing"

// An answer that was not handed out yet is one for the session's Want and for its Demand: it stays until both are withdrawn,
// and answers what is asked again.
func TestWithdrawAnswered(t *testing.T) {
	const i = 2
	for _, c := range []struct {
		name string
		do   string // w: Want, c: Cancel, d: Demand, u: Undemand, a: the block is added
		want int    // answers
	}{
		{"both withdrawn", "wdauc", 0},
		{"the Demand withdrawn", "wdau", 1},
		{"the Demand withdrawn twice", "wdauu", 1},
		{"the Want withdrawn", "wdac", 1},
		{"the Want withdrawn twice", "wdacc", 1},
		{"demanded again and withdrawn", "dadu", 0},
		{"wanted as well and withdrawn", "dawc", 1},
		{"wanted as well", "dawu", 1},
		{"demanded as well", "waduc", 0},
		{"two Wants", "wwacd", 1},
		{"two Wants, and both withdrawn", "wwadccu", 0},
		{"demanded when it is here", "addw", 1},
		{"demanded when it is here, and withdrawn", "addwuc", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFuzzed(t, nil)
			const id = SessionID(1)
			man := f.roots[id%2]
			f.e.SetManifest(f.now, id, man)
			for _, op := range c.do {
				switch op {
				case 'w':
					f.e.Want(f.now, id, man.Leaf(i), WantOptions{})
				case 'c':
					f.e.Cancel(f.now, id, man.Leaf(i))
				case 'd':
					f.e.Demand(f.now, id, i, 1)
				case 'u':
					f.e.Undemand(f.now, id, i, 1)
				case 'a':
					f.e.Added(f.now, man.Leaf(i), 100)
				}
			}
			if n := len(f.e.Ready().Delivers); n != c.want {
				t.Errorf("%d answers, want %d", n, c.want)
			}
			if err := f.e.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}
