package node

import (
	"cmp"
	"math"
	"slices"
	"time"

	"dray/exchange"
	"dray/tensor"
)

// Use says how urgent a tensor is, or what is computed from it.
type Use struct {
	// Class is the coarse urgency: whatever is of a higher class comes first.
	Class exchange.Class
	// Deadline is when it is needed, from the call on. What is wanted rises in class by itself as its deadline comes near. If
	// zero, there is none.
	Deadline time.Duration
	// Flow and Weight say, for the policies that are fair, on whose behalf it is used and what share that has; see
	// [tensor.Job].
	Flow   uint64
	Weight int64
}

// urgency is what a tensor has of its own and of all that is computed from it.
type urgency struct {
	class    exchange.Class
	deadline time.Duration
}

const noDeadline = time.Duration(math.MaxInt64)

// before is negative when u is more urgent than o.
func (u urgency) before(o urgency) int {
	return cmp.Or(cmp.Compare(o.class, u.class), cmp.Compare(u.deadline, o.deadline))
}

// queue chooses the next tensor of a stream.
type queue struct {
	plan      *placement
	cfg       *StreamConfig
	urgencies []urgency // by index in plan.placed
	line      []int     // what is left, in its order, without a policy

	waiting map[exchange.Class]tensor.Scheduler // those whose needs have been chosen
	needs   map[string]int                      // how many of a node's needs have not
	lends   map[string][]string                 // what needs a node
	index   map[string]int                      // in plan.placed
}

// newQueue puts the tensors of a plan into the queue.
func newQueue(p *placement, cfg *StreamConfig) (*queue, error) {
	q := &queue{plan: p, cfg: cfg, urgencies: make([]urgency, len(p.placed)), index: make(map[string]int)}
	for i := range p.placed {
		q.index[p.placed[i].name] = i
	}
	nodes, lent, err := q.inherit()
	if err != nil {
		return nil, err
	}
	// The order of the graph first, then that of use, for what is not in the graph.
	for _, name := range nodes {
		if i, ok := q.index[name]; ok {
			q.line = append(q.line, i)
		}
	}
	for _, i := range p.order {
		name := p.placed[i].name
		u, ok := lent[name]
		if !ok {
			u = q.own(name)
			q.line = append(q.line, i)
		}
		q.urgencies[i] = u
	}
	if cfg.Policy != "" {
		return q, q.schedule(nodes)
	}
	slices.SortStableFunc(q.line, func(a, b int) int { return q.urgencies[a].before(q.urgencies[b]) })
	return q, nil
}

// inherit returns the nodes of the graph in their order, and how urgent each is.
func (q *queue) inherit() (nodes []string, lent map[string]urgency, err error) {
	if q.cfg.Graph == nil {
		return nil, nil, nil
	}
	if nodes, err = q.cfg.Graph.Order(); err != nil {
		return nil, nil, err
	}
	lent, err = tensor.Inherit(q.cfg.Graph, q.own, urgency.before)
	return nodes, lent, err
}

// own returns the urgency that a tensor or result has without others.
func (q *queue) own(name string) urgency {
	use := q.cfg.Uses[name]
	if use.Deadline == 0 {
		use.Deadline = noDeadline
	}
	return urgency{use.Class, use.Deadline}
}

// schedule prepares for a policy.
func (q *queue) schedule(nodes []string) error {
	q.waiting = make(map[exchange.Class]tensor.Scheduler)
	q.needs, q.lends = make(map[string]int), make(map[string][]string)
	cfg := q.cfg.Schedule
	cfg.Limit = max(cfg.Limit, len(q.line)) // all of them may wait
	for c := exchange.Prefetch; c <= exchange.Critical; c++ {
		s, err := tensor.NewScheduler(q.cfg.Policy, cfg)
		if err != nil {
			return err
		}
		q.waiting[c] = s
	}
	for _, name := range nodes {
		for _, n := range q.cfg.Graph.Needs(name) {
			q.needs[name]++
			q.lends[n] = append(q.lends[n], name)
		}
	}
	line := q.line
	q.line = nil
	var free []string // results that need nothing
	for _, name := range nodes {
		if _, ok := q.index[name]; !ok && q.needs[name] == 0 {
			free = append(free, name)
		}
	}
	for _, i := range line {
		if q.needs[q.plan.placed[i].name] == 0 {
			q.push(i, 0)
		}
	}
	for _, name := range free {
		q.chosen(name, 0)
	}
	return nil
}

// push lets a tensor wait for its turn.
func (q *queue) push(i int, now time.Duration) {
	p, u := &q.plan.placed[i], q.urgencies[i]
	use := q.cfg.Uses[p.name]
	job := tensor.Job{ID: uint64(i), Flow: use.Flow, Weight: use.Weight, Size: p.runs.Bytes()}
	if u.deadline != noDeadline {
		job.Deadline = u.deadline
	}
	class := min(max(u.class, exchange.Prefetch), exchange.Critical)
	if !q.waiting[class].Push(job, now) {
		panic("node: a tensor is in the queue twice") // there is room for all
	}
}

// chosen lets what needed only this node wait, or be computed.
func (q *queue) chosen(name string, now time.Duration) {
	for done := []string{name}; len(done) > 0; {
		lends := q.lends[done[0]]
		done = done[1:]
		for _, n := range lends {
			if q.needs[n]--; q.needs[n] > 0 {
				continue
			}
			if i, ok := q.index[n]; ok {
				q.push(i, now)
			} else {
				done = append(done, n)
			}
		}
	}
}

// next returns the next tensor as an index in the plan's placed. Now is the time since the call.
func (q *queue) next(now time.Duration) (int, bool) {
	if q.waiting == nil {
		if len(q.line) == 0 {
			return 0, false
		}
		i := q.line[0]
		q.line = q.line[1:]
		return i, true
	}
	for c := exchange.Critical; c >= exchange.Prefetch; c-- {
		if job, ok := q.waiting[c].Pop(now); ok {
			i := int(job.ID)
			q.chosen(q.plan.placed[i].name, now)
			return i, true
		}
	}
	return 0, false
}
