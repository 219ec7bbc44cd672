package mirror

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"dray"
)

func idOf(i int) dray.PeerID { return dray.PeerID(fmt.Sprintf("\x00\x04id%02d", i)) }

// Every node leads about as many keys as every other, and one that comes takes over only what it leads itself.
func TestWeights(t *testing.T) {
	const nodes, keys = 8, 4000
	lead := func(key string, n int) int {
		best := 0
		for i := 1; i < n; i++ {
			if outweighs(key, idOf(i), idOf(best)) {
				best = i
			}
		}
		return best
	}
	count := make([]int, nodes)
	for k := range keys {
		key := fmt.Sprint("key", k)
		a, b := lead(key, nodes-1), lead(key, nodes)
		if a != b && b != nodes-1 {
			t.Fatalf("%s: led by %d, then by %d, though only %d came", key, a, b, nodes-1)
		}
		count[b]++
	}
	for i, n := range count {
		if n < keys/nodes/2 || n > keys/nodes*2 {
			t.Errorf("node %d leads %d of %d", i, n, keys)
		}
	}
	if outweighs("k", idOf(1), idOf(1)) {
		t.Error("a node outweighs itself")
	}
}

func TestDecide(t *testing.T) {
	const key = "key"
	me, a, b := idOf(0), idOf(1), idOf(2)
	if outweighs(key, a, b) {
		a, b = b, a // b weighs more
	}
	light := standing{peer: me, stage: stageChoosing}
	for _, row := range []struct {
		name  string
		self  standing
		peers []standing
		want  choice
	}{
		{"alone", light, nil, choice{}},
		{"alone and unable", standing{peer: me, unable: true}, nil, choice{hopeless: true}},
		{
			"somebody has it", light,
			[]standing{{peer: b, stage: stageLeading, front: 9}, {peer: a, stage: stageComplete}},
			choice{follow: a},
		},
		{
			"who reads it before who is fed", light,
			[]standing{{peer: b, stage: stageFollowing, front: 9}, {peer: a, stage: stageLeading}},
			choice{follow: a},
		},
		{"who is fed by others", light, []standing{{peer: a, stage: stageFollowing, path: []dray.PeerID{a, b}}}, choice{follow: a}},
		{"who is fed by this node", light, []standing{{peer: a, stage: stageFollowing, path: []dray.PeerID{b, me}}}, choice{}},
		{
			"who has most",
			standing{peer: me, front: 5},
			[]standing{{peer: b, stage: stageChoosing, front: 4}, {peer: a, stage: stageNone, front: 6}},
			choice{follow: a},
		},
		{
			"who waits for this node does not lead", light,
			[]standing{{peer: a, stage: stageChoosing, front: 6, path: []dray.PeerID{b, me}}},
			choice{},
		},
		{
			"who waits for another", light,
			[]standing{{peer: a, stage: stageChoosing, front: 6, path: []dray.PeerID{b}}},
			choice{follow: a},
		},
		{"unable though it has most", light, []standing{{peer: a, front: 6, unable: true}}, choice{}},
		{
			"unable, so who weighs most",
			standing{peer: me, front: 7, unable: true},
			[]standing{{peer: a, stage: stageNone}, {peer: b, stage: stageNone}},
			choice{follow: b},
		},
	} {
		if got := decide(key, row.self, row.peers); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}

// Who is fed through somebody who failed is about to choose, and does not count as fed.
func TestWithout(t *testing.T) {
	me, a, b := idOf(0), idOf(1), idOf(2)
	got := without(map[dray.PeerID]bool{b: true}, []standing{
		{peer: a, stage: stageFollowing, front: 3, path: []dray.PeerID{b}}, {peer: me, stage: stageFollowing, path: []dray.PeerID{a}},
	})
	if got[0].stage != stageChoosing || got[0].front != 3 || got[0].path != nil || got[1].stage != stageFollowing {
		t.Errorf("%+v", got)
	}
}

// In a circle exactly one gives up, wherever it looks from.
func TestBreaksOut(t *testing.T) {
	for n := 2; n < 6; n++ {
		out := 0
		for i := range n {
			var hope []dray.PeerID
			for k := range n {
				hope = append(hope, idOf((i+1+k)%n))
			}
			if breaksOut("key", idOf(i), append(hope, idOf(9))) {
				out++
			}
			if breaksOut("key", idOf(i), hope[:n-1]) {
				t.Errorf("%d of %d gives up though nobody waits for it", i, n)
			}
		}
		if out != 1 {
			t.Errorf("%d of %d give up", out, n)
		}
	}
}

// Nodes that all decide by what each sees of the others never come to follow in a circle, whoever sees whom.
func TestDecideNoCircle(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		n := 2 + rng.IntN(6)
		key := fmt.Sprint("key", round)
		all := make([]standing, n)
		for i := range all {
			all[i] = standing{peer: idOf(i), stage: stageNone, front: int64(rng.IntN(3)), unable: rng.IntN(5) == 0}
		}
		follows := make(map[dray.PeerID]dray.PeerID)
		for i := range all {
			var seen []standing
			for j := range all {
				if i != j && rng.IntN(3) > 0 {
					seen = append(seen, all[j])
				}
			}
			follows[idOf(i)] = decide(key, all[i], seen).follow
		}
		for i := range all {
			var path []dray.PeerID
			for at := idOf(i); at != ""; at = follows[at] {
				if slices.Contains(path, at) {
					t.Fatalf("round %d: %v leads back to %v", round, path, at)
				}
				path = append(path, at)
			}
		}
	}
}

// The claims of many readers never overlap, and in the end every cut is filled once.
func TestClaims(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var cuts []cut
		at := int64(0)
		for range 1 + rng.IntN(40) {
			n := int64(1 + rng.IntN(9))
			cuts = append(cuts, cut{begin: at, end: at + n})
			at += n
		}
		c := newClaims(cuts)
		owner := make([]int, len(cuts)) // who has claimed a cut, 0 nobody
		type span struct{ i, j, id int }
		var open []span
		filled := 0
		for id := 1; filled < len(cuts); id++ {
			if len(open) == 0 || rng.IntN(2) == 0 {
				offset := rng.Int64N(at)
				i := c.at(offset)
				if cuts[i].begin > offset || cuts[i].end <= offset {
					t.Fatalf("byte %d is said to be in %+v", offset, cuts[i])
				}
				most := int64(1 + rng.IntN(20))
				j := c.claim(i, most)
				for k := i; k < j; k++ {
					if owner[k] != 0 {
						t.Fatalf("cut %d is claimed by %d and %d", k, owner[k], id)
					}
					owner[k] = id
				}
				if j > i+1 && cuts[j-1].end-cuts[i].begin > most {
					t.Fatalf("%d bytes claimed of %d", cuts[j-1].end-cuts[i].begin, most)
				}
				if j > i {
					open = append(open, span{i, j, id})
				}
				continue
			}
			k := rng.IntN(len(open))
			s := open[k]
			open = slices.Delete(open, k, k+1)
			for i := s.i; i < s.j && rng.IntN(6) > 0; i++ {
				c.fill(i)
				owner[i] = -1
				filled++
			}
			c.release(s.i, s.j)
			for i := s.i; i < s.j; i++ {
				if owner[i] == s.id {
					owner[i] = 0
				}
			}
		}
		if c.at(at) != len(cuts) {
			t.Error("the end lies in a cut")
		}
	}
}

// A table that is told the leaves of a file in any order, some of them twice and some wrong, ends up with the file.
func TestTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	leaf := func(i int) cid.Cid {
		b, err := dray.Hashed(leafPrefix, []byte{byte(i), byte(i >> 8)})
		if err != nil {
			t.Fatal(err)
		}
		return b.CID()
	}
	for range 300 {
		var list []entry
		at := int64(0)
		for i := range 1 + rng.IntN(30) {
			n := int64(1 + rng.IntN(9))
			list = append(list, entry{begin: at, end: at + n, leaf: leaf(i)})
			at += n
		}
		tab := table{size: at}
		told := make(map[int64]bool)
		for len(told) < len(list) {
			e := list[rng.IntN(len(list))]
			if !tab.add(e) {
				t.Fatalf("%+v is refused", e)
			}
			told[e.begin] = true
			wrong := e
			switch rng.IntN(3) {
			case 0:
				wrong.leaf = leaf(1000)
			case 1:
				wrong.begin, wrong.end = e.begin, e.end+1
			case 2:
				wrong.end = at + 1
			}
			if tab.add(wrong) {
				t.Fatalf("%+v is taken, though there is %+v", wrong, e)
			}
			if rng.IntN(8) == 0 {
				tab.drop(e.begin)
				delete(told, e.begin)
			}
			front := int64(0)
			for _, e := range list {
				if e.begin == front && told[e.begin] {
					front = e.end
				}
				got, ok := tab.find(e.end - 1)
				if ok != told[e.begin] || ok && got != e {
					t.Fatalf("at %d there is %+v, %v", e.end-1, got, ok)
				}
			}
			if tab.front() != front {
				t.Fatalf("front %d, want %d", tab.front(), front)
			}
		}
		if !slices.Equal(tab.run, list) || len(tab.ahead) > 0 {
			t.Fatal("the file is another one")
		}
	}
}

// TestTellerBeganAnew: whoever was told of a leaf, were it one before its turn, hears when its flow forgets all leaves.
func TestTellerBeganAnew(t *testing.T) {
	first := entry{begin: 0, end: 10, leaf: someLeaf(t, 1)}
	later := entry{begin: 20, end: 30, leaf: someLeaf(t, 2)}
	for name, told := range map[string][]entry{"in turn": {first}, "before its turn": {later}, "nothing": nil} {
		w, tell := &flow{epoch: 3, table: table{size: 30}}, &teller{ahead: make(map[int64]bool)}
		for _, e := range told {
			w.table.add(e)
		}
		if err := tell.take(w); err != nil || len(tell.news) != len(told) {
			t.Errorf("%s: %v told, %v", name, tell.news, err)
		}
		w.epoch, w.table = 4, table{size: 30}
		w.table.add(later)
		if err := tell.take(w); (err != nil) != (told != nil) || err == nil && len(tell.news) != 1 {
			t.Errorf("%s: %v told after it began anew, %v", name, tell.news, err)
		}
	}
}

// someLeaf returns the CID of a leaf that is like no other.
func someLeaf(t *testing.T, i byte) cid.Cid {
	b, err := dray.Hashed(leafPrefix, []byte{i})
	if err != nil {
		t.Fatal(err)
	}
	return b.CID()
}
