package transport

import (
	"time"

	"dray"
)

// outgoing is one stream that a Dispatcher writes to. Owned by its writer.
type outgoing struct {
	d       *Dispatcher
	s       Stream
	head    []byte // to be written before anything else
	full    bool   // the next message of the state lane must say everything
	state   bool   // there is a message of the state lane in the buffer
	first   bool   // nothing was owed before what is in the buffer
	turn    bool   // of the event lane, where one message is written at a time
	scratch []byte
}

// gather fills the buffer with what is to be written next; it stays empty when there is nothing.
func (o *outgoing) gather() error {
	d := o.d
	d.buf = append(d.buf[:0], o.head...)
	o.head, o.state = nil, false
	d.mu.Lock()
	switch {
	case d.finished:
		d.buf = d.buf[:0]
		d.mu.Unlock()
		return nil
	case d.broken != nil:
		defer d.mu.Unlock()
		return d.broken
	}
	if !d.settled && len(d.flying) > 0 {
		// The receiver is about to say what it has of that: waiting a round trip saves writing it twice.
		d.busy = len(d.buf) > 0
		d.mu.Unlock()
		return nil
	}
	again := d.head
	o.repeat()
	ask := d.news && d.room(0) && again == nil && !(o.turn && d.ring.len() > 0)
	if ask {
		d.news = false
	}
	o.first = len(d.flying) == 0
	d.busy = len(d.buf) > 0 || again != nil || ask || d.ring.len() > 0
	d.mu.Unlock()
	var err error
	switch {
	case again != nil:
		o.appendRaw(again, true)
	case ask:
		err = o.gatherState()
	}
	if err == nil && (d.cfg.Format == nil || len(d.buf) == 0) {
		o.gatherEvents()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	o.turn = o.state && d.cfg.Format != nil
	if err == nil && len(d.buf) == 0 {
		d.busy = false
		d.hush()
		if d.news && d.room(0) {
			wake(d.woken) // it was not asked because of an event that could not be written
		}
	}
	return err
}

// repeat writes once more the events that an earlier stream has lost, as far as the receiver remembers. The caller holds mu.
func (o *outgoing) repeat() {
	d := o.d
	for i := range d.flying {
		if f := &d.flying[i]; f.again && !f.state {
			f.again = false
			d.buf = appendFrame(d.buf, &frame{flags: frameAgain, seq: f.event.seq, label: f.event.Label, data: f.event.Data})
		}
	}
}

// room reports whether one more message of so many bytes may be written ahead of acknowledgements. The caller holds mu.
func (d *Dispatcher) room(bytes int) bool {
	return len(d.flying) == 0 || len(d.flying) < d.cfg.Window && d.flown+bytes <= d.cfg.WindowBytes
}

// gatherState asks the State for its next message.
func (o *outgoing) gatherState() error {
	d := o.d
	at := len(d.buf)
	var data []byte
	var ok bool
	var err error
	if d.cfg.Format != nil {
		d.buf, ok, err = d.cfg.State.Next(d.buf, o.s, o.full)
	} else {
		data, ok, err = d.cfg.State.Next(o.scratch[:0], o.s, o.full)
		o.scratch = data
	}
	switch {
	case err != nil:
		return err
	case !ok:
		d.buf = d.buf[:at]
		return nil
	case len(data) > d.cfg.MaxMessage:
		return &dray.Error{Op: "say", Peer: d.cfg.Peer, Err: dray.ErrTooBig}
	}
	f := frame{flags: frameState, label: StateLabel, data: data}
	if o.full {
		f.flags |= frameFull
	}
	o.full, o.state = false, true
	d.mu.Lock()
	d.news = true // there may be more
	if d.cfg.Format == nil {
		d.said++
		f.seq = d.said
		d.flying = append(d.flying, flight{event: Event{Label: StateLabel, seq: f.seq}, size: len(data), state: true})
		d.flown += len(data)
	}
	d.mu.Unlock()
	if d.cfg.Format == nil {
		d.buf = appendFrame(d.buf, &f)
	}
	return nil
}

// gatherEvents takes events from the ring: as many as there is room for, or one in a Format without acknowledgements.
func (o *outgoing) gatherEvents() {
	d := o.d
	for len(d.buf) < batchBytes {
		d.mu.Lock()
		e, ok := d.ring.next()
		if ok = ok && d.room(len(e.Data)); ok {
			_, _ = d.ring.pop()
			if d.cfg.Format != nil {
				d.head = &e
			} else {
				d.flying = append(d.flying, flight{event: e, size: len(e.Data)})
				d.flown += len(e.Data)
			}
		}
		d.mu.Unlock()
		switch {
		case !ok:
			return
		case d.cfg.Format == nil:
			d.buf = appendFrame(d.buf, &frame{seq: e.seq, label: e.Label, data: e.Data})
		case o.appendRaw(&e, false):
			return
		}
	}
}

// appendRaw writes an event in the Format, and drops it when the stream carries none.
func (o *outgoing) appendRaw(e *Event, again bool) bool {
	d := o.d
	at := len(d.buf)
	if d.buf = d.cfg.Format.AppendEvent(d.buf, o.s, e, again); len(d.buf) > at {
		return true
	}
	d.drop(*e)
	d.mu.Lock()
	d.head = nil
	d.mu.Unlock()
	return false
}

// written notes that the buffer was written as a whole.
func (o *outgoing) written() {
	d := o.d
	if o.state {
		d.cfg.State.Written()
	}
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if o.first {
		d.heard, o.first = now, false
	}
	if d.head != nil {
		d.cfg.counts.sent(d.head.Label, len(d.head.Data))
		d.head = nil
	}
	d.busy = false
	d.hush()
}
