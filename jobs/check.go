package jobs

import "fmt"

// Check returns an error that says which invariant of the queue does not hold. It is for tests: it looks at everything.
func (q *Queue) Check() error {
	active, busy, ended := 0, 0, 0
	for id, e := range q.jobs {
		switch {
		case e.ID != id:
			return fmt.Errorf("job %d is filed under %d", e.ID, id)
		case e.State == Running && !e.busy:
			return fmt.Errorf("job %d is running and nobody works at it", id)
		case e.State.active() && q.keys[e.Key] != e:
			return fmt.Errorf("job %d is in the set, and its key names another", id)
		case e.State == Waiting && !q.filed(q.timed, e):
			return fmt.Errorf("job %d waits and will never be woken", id)
		case e.State == Queued && !q.filed(q.ready, e) && !q.isBlocked(e):
			return fmt.Errorf("job %d is queued and nobody will take it up", id)
		}
		if e.State.active() {
			active++
		} else {
			ended++
		}
		if e.busy {
			busy++
			if q.places[e.place()] != id {
				return fmt.Errorf("job %d is being worked at, and its place is not taken by it", id)
			}
		}
	}
	switch {
	case active != q.active || active != len(q.keys):
		return fmt.Errorf("%d jobs in the set, counted %d, with %d keys", active, q.active, len(q.keys))
	case q.active > q.cfg.Jobs:
		return fmt.Errorf("%d jobs in the set, which may have %d", q.active, q.cfg.Jobs)
	case ended != len(q.ended) || ended > max(q.cfg.Ended, 0):
		return fmt.Errorf("%d jobs have ended, %d are listed, %d may be", ended, len(q.ended), q.cfg.Ended)
	case q.running != len(q.places) || q.running > max(q.cfg.Workers, 0):
		return fmt.Errorf("%d attempts, at %d places, by %d workers", q.running, len(q.places), q.cfg.Workers)
	case busy > q.running: // those of forgotten jobs are only in running
		return fmt.Errorf("%d jobs are worked at, in %d attempts", busy, q.running)
	}
	return nil
}

func (q *Queue) filed(h items, e *entry) bool {
	for i := range h {
		if h[i].e == e && h[i].gen == e.gen {
			return true
		}
	}
	return false
}

func (q *Queue) isBlocked(e *entry) bool {
	_, taken := q.places[e.place()]
	for _, id := range q.blocked[e.place()] {
		if id == e.ID {
			return taken
		}
	}
	return false
}
