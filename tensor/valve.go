package tensor

import "fmt"

// Load is an amount of work under way.
type Load struct {
	// Bytes and Count are its size and how many pieces it is in.
	Bytes int64
	Count int
}

// Marks are the loads at which a [Valve] acts.
type Marks struct {
	// Resume opens a valve again when both values of the load are at or below it. If a value is zero, 16 MiB and 16.
	Resume Load
	// Pause closes a valve when either value of the load is at or above it. If a value is zero, 64 MiB and 48.
	Pause Load
	// Refuse is what no load goes beyond, in either value, except for a single piece larger than that. If a value is
	// zero, 96 MiB and 64. Between Pause and Refuse there is room for what was on its way when the valve closed.
	Refuse Load
}

func (m Marks) withDefaults() Marks {
	def := func(l *Load, d Load) {
		if l.Bytes == 0 {
			l.Bytes = d.Bytes
		}
		if l.Count == 0 {
			l.Count = d.Count
		}
	}
	def(&m.Resume, Load{16 << 20, 16})
	def(&m.Pause, Load{64 << 20, 48})
	def(&m.Refuse, Load{96 << 20, 64})
	return m
}

// check says whether the marks leave room between one another, without which a valve would flutter.
func (m Marks) check() error {
	if m.Resume.Bytes < 0 || m.Resume.Count < 0 || m.Resume.Bytes >= m.Pause.Bytes || m.Resume.Count >= m.Pause.Count ||
		m.Refuse.Bytes < m.Pause.Bytes || m.Refuse.Count < m.Pause.Count {
		return fmt.Errorf("marks %+v: want resume below pause, and pause at most refuse", m)
	}
	return nil
}

// Valve says whether more work may be begun, from how much is under way, with a gap between closing and opening so
// that it does not flutter around one mark. Every direction has a valve of its own: what one side sends must never
// release what it receives. A Valve is not safe for concurrent use.
type Valve struct {
	marks  Marks
	load   Load
	paused bool
}

// NewValve returns an open valve. It fails when the marks, with defaults filled in, are not in order.
func NewValve(m Marks) (*Valve, error) {
	m = m.withDefaults()
	if err := m.check(); err != nil {
		return nil, err
	}
	return &Valve{marks: m}, nil
}

// Open reports whether more work should be begun.
func (v *Valve) Open() bool { return !v.paused }

// Load returns what is under way.
func (v *Valve) Load() Load { return v.load }

// Take counts a piece of n bytes as under way, and reports true; or reports false and counts nothing, when that would
// go beyond the mark Refuse. It may be called while the valve is closed, for work that cannot be called back. A first
// piece is never refused, so that one of any size gets through. It panics when n is negative.
func (v *Valve) Take(n int64) bool {
	if n < 0 {
		panic("tensor: a piece of negative size")
	}
	if v.load.Count > 0 && (v.load.Count >= v.marks.Refuse.Count || n > v.marks.Refuse.Bytes-v.load.Bytes) {
		return false
	}
	v.load.Bytes += n
	v.load.Count++
	v.turn()
	return true
}

// Give says that a piece of n bytes, counted by Take, is done or given up. It panics when that is more than was
// taken, because then pieces are counted in two places.
func (v *Valve) Give(n int64) {
	if n < 0 || n > v.load.Bytes || v.load.Count < 1 || v.load.Count == 1 && n != v.load.Bytes {
		panic(fmt.Sprintf("tensor: %d bytes given back of %+v", n, v.load))
	}
	v.load.Bytes -= n
	v.load.Count--
	v.turn()
}

func (v *Valve) turn() {
	switch m := &v.marks; {
	case v.load.Bytes >= m.Pause.Bytes || v.load.Count >= m.Pause.Count:
		v.paused = true
	case v.load.Bytes <= m.Resume.Bytes && v.load.Count <= m.Resume.Count:
		v.paused = false
	}
}
