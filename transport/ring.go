package transport

// Event is one message of a [Dispatcher]'s event lane.
type Event struct {
	// Label says what the message is about: whoever reads tells messages apart by it, and they are counted by it. At most
	// [MaxLabel] bytes.
	Label string
	// Data is the message. Nobody may change it once it was posted.
	Data []byte

	seq uint64 // in the order of posting, so that a receiver sees how many are missing
}

// ring is a queue that drops its oldest events when it is full, so that pushing never waits and the newest is always there.
//
// Invariant: len(queue)-head ≤ count, and held ≤ bytes unless there is just one event.
type ring struct {
	count, bytes int // the bounds
	queue        []Event
	head         int
	held         int // bytes of data in the queue
}

// push adds an event and calls drop with each that had to go.
func (r *ring) push(e Event, drop func(Event)) {
	for r.len() > 0 && (r.len() >= r.count || r.held+len(e.Data) > r.bytes) {
		old, _ := r.pop()
		drop(old)
	}
	if r.head > 0 && len(r.queue) == cap(r.queue) {
		k := copy(r.queue, r.queue[r.head:])
		clear(r.queue[k:])
		r.queue, r.head = r.queue[:k], 0
	}
	r.queue = append(r.queue, e)
	r.held += len(e.Data)
}

// pop takes the oldest event.
func (r *ring) pop() (Event, bool) {
	if r.len() == 0 {
		return Event{}, false
	}
	e := r.queue[r.head]
	r.queue[r.head] = Event{}
	r.held -= len(e.Data)
	if r.head++; r.head == len(r.queue) {
		r.queue, r.head = r.queue[:0], 0
	}
	return e, true
}

// next returns the oldest event and leaves it where it is.
func (r *ring) next() (Event, bool) {
	if r.len() == 0 {
		return Event{}, false
	}
	return r.queue[r.head], true
}

func (r *ring) len() int { return len(r.queue) - r.head }
