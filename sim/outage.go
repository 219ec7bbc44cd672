package sim

import (
	"fmt"
	"time"
)

// Outages are what goes wrong with an honest host for a while: it, its line, its disk or the network. What they have in common is that
// nobody is told, and that the host is not to blame.

const (
	deadAfter   = 30 * time.Second // silence after which a connection counts as broken by whoever keeps it alive
	dialTimeout = 5 * time.Second  // to who does not answer
	rejoinAfter = 200 * time.Millisecond
	pieceTime   = 250 * time.Millisecond // a message that takes longer than pieceOver is sent in pieces of so long
	pieceOver   = time.Second
)

// planOutage plans the beginning and the end of an outage.
func (r *soup) planOutage(e *Event, h *Host) {
	w := r.w
	during := func(begin, end func()) {
		w.After(e.At, begin)
		if e.For > 0 {
			w.After(e.At+e.For, end)
		}
	}
	faults := func(on, off func(f *Faults)) {
		change := func(do func(*Faults)) func() {
			return func() {
				f := h.faults
				do(&f)
				h.SetFaults(f)
			}
		}
		during(change(on), change(off))
	}
	switch e.Do {
	case DoFreeze:
		faults(func(f *Faults) { f.Frozen = true }, func(f *Faults) { f.Frozen = false })
	case DoForget:
		faults(func(f *Faults) { f.Forget = e.P }, func(f *Faults) { f.Forget = 0 })
	case DoCorrupt:
		h.lied = true
		faults(func(f *Faults) { f.WrongBytes = e.P }, func(f *Faults) { f.WrongBytes = 0 })
	case DoLie:
		h.lied = true
		faults(func(f *Faults) { f.Swap = SwapClaims }, func(f *Faults) { f.Swap = SwapHonest })
	case DoSuspend:
		during(h.Suspend, h.Continue)
	case DoTrickle:
		rate := h.cfg.Up
		during(func() { h.cfg.Up = float64(max(e.N, 1)) }, func() { h.cfg.Up = rate })
	case DoReset:
		for at := e.At; at <= e.At+e.For; at += max(e.Every, rejoinAfter) {
			w.After(at, h.reset)
		}
	case DoTruncate:
		during(func() { h.truncate = e.P }, func() { h.truncate = 0 })
	case DoFull:
		during(func() { h.cfg.Disk.Full = true }, func() { h.cfg.Disk.Full = false })
	case DoReadError:
		p := h.cfg.Disk.FailReads
		during(func() { h.cfg.Disk.FailReads = e.P }, func() { h.cfg.Disk.FailReads = p })
	case DoWriteError:
		p := h.cfg.Disk.FailWrites
		during(func() { h.cfg.Disk.FailWrites = e.P }, func() { h.cfg.Disk.FailWrites = p })
	case DoSplit:
		w.splits++
		bit := uint64(1) << (w.splits & 63)
		during(func() { r.split(e.Hosts, bit) }, func() { r.split(e.Hosts, bit) })
	case DoStrangers:
		for i := range e.N {
			w.After(e.At+e.For*time.Duration(i)/time.Duration(e.N), func() { h.visit(max(e.Every, time.Second)) })
		}
		r.ends += max(e.Every, time.Second)
	default:
		panic(fmt.Sprintf("sim: no event is called %q", string(e.Do)))
	}
}

// split moves hosts to the other side of a cut, or back.
func (r *soup) split(ids []int, bit uint64) {
	var changed []*Host
	for _, id := range ids {
		if h := r.hosts[id]; h != nil {
			changed = append(changed, h)
		}
	}
	r.w.Split(bit, changed...)
}

// Split puts hosts on the other side of a cut of the network, or back if they were there. Cuts are told apart by bit. Between hosts on
// different sides nothing passes, and nobody is told; a connection lives on if the network heals before it is given up.
func (w *World) Split(bit uint64, hosts ...*Host) {
	for _, h := range hosts {
		w.trace.note("%v split %s %x\n", w.now, h.name, bit)
		h.side ^= bit
	}
	w.pathsChanged()
}

// reaches reports whether packets pass between two hosts.
func (h *Host) reaches(o *Host) bool { return h.side == o.side }

// answers reports whether o, if it is asked by h, answers now.
func (o *Host) answers(h *Host) bool { return o.alive && !o.suspended && h.reaches(o) }

// mute reports whether the host at the other end of l cannot be heard.
func (l *half) mute() bool { return !l.from.reaches(l.to) || l.to.suspended }

// pathsChanged looks which connections are silent now: those that stay so for long are given up. What waits for paths that are
// whole again goes on.
func (w *World) pathsChanged() {
	for _, h := range w.hosts {
		for _, l := range h.halves {
			if m := l.mute(); m == l.silent {
				continue
			}
			l.silent = !l.silent
			l.changes++
			if n := l.changes; l.silent {
				w.After(deadAfter, func() { w.giveUp(l, n) })
			}
		}
	}
	w.heal()
}

// giveUp ends a connection, if it is silent ever since it changed n times.
func (w *World) giveUp(l *half, n int) {
	if !l.open || l.changes != n {
		return
	}
	w.trace.note("%v %s gives up %s\n", w.now, l.from.name, l.to.name)
	w.lost = append(w.lost, [2]*Host{l.from, l.to})
	l.leave()
	w.After(0, l.back.leave) // its time has run out as well, or it is told when it goes on
}

// heal lets through what waits for paths that are whole again, and makes connections again that broke meanwhile.
func (w *World) heal() {
	for _, h := range w.hosts {
		for _, l := range h.halves {
			if len(l.held) > 0 && l.from.reaches(l.to) {
				w.After(reconnect, l.flush)
			}
		}
	}
	kept := w.lost[:0]
	for _, pair := range w.lost {
		a, b := pair[0], pair[1]
		if !a.reaches(b) || a.suspended || b.suspended {
			kept = append(kept, pair)
			continue
		}
		if !w.alone {
			w.After(w.between(0, time.Second), func() { w.rejoin(a, b) })
		}
	}
	w.lost = kept
}

// rejoin makes a connection again, later if it cannot be made now because of an outage.
func (w *World) rejoin(a, b *Host) {
	if w.alone {
		return
	}
	if a.alive && b.alive && (!a.reaches(b) || a.suspended || b.suspended) {
		w.lost = append(w.lost, [2]*Host{a, b})
		return
	}
	w.Connect(a, b)
}

// heldStep is a packet that waits for the network, and what happens to it next.
type heldStep struct {
	p    *packet
	step step
}

// holds keeps a packet whose path is cut, and reports whether it did.
func (p *packet) holds(s step) bool {
	l := p.l
	if l.from.reaches(l.to) && (len(l.held) == 0 || l.flushing) {
		return false
	}
	l.held = append(l.held, heldStep{p, s})
	return true
}

// flush lets the packets that were held go on in their order; what comes meanwhile was held behind them.
func (l *half) flush() {
	if !l.from.reaches(l.to) {
		return
	}
	list := l.held
	l.held, l.flushing = nil, true
	for _, x := range list {
		if x.step == enters {
			x.p.enter()
		} else {
			x.p.arrive()
		}
	}
	l.flushing = false
}

// Suspend stops a host as SIGSTOP does: it reads nothing, takes no turns, and whatever was due meanwhile is late.
func (h *Host) Suspend() {
	if !h.alive || h.suspended {
		return
	}
	h.w.trace.note("%v suspend %s\n", h.w.now, h.name)
	h.suspended = true
	h.w.pathsChanged()
}

// Continue lets a suspended host go on: first its timers fire, late, then it reads what has come.
func (h *Host) Continue() {
	if !h.alive || !h.suspended {
		return
	}
	h.w.trace.note("%v continue %s\n", h.w.now, h.name)
	h.suspended = false
	late := h.late
	h.late = nil
	for _, do := range late {
		do()
	}
	h.thaw()
	h.pump()
	h.w.pathsChanged()
}

// wake does something to a living host: now or, if it is suspended, when it goes on.
func (h *Host) wake(do func()) {
	switch {
	case !h.alive:
	case h.suspended:
		life := h.life
		h.late = append(h.late, func() {
			if h.life == life {
				do()
			}
		})
	default:
		do()
	}
}

// reset breaks all connections of the host. They come again.
func (h *Host) reset() {
	w := h.w
	for len(h.halves) > 0 {
		l := h.halves[0]
		w.Cut(h, l.to)
		if l.open {
			return // suspended: it is told later
		}
		w.After(rejoinAfter, func() { w.rejoin(h, l.to) })
	}
}

// cuts reports whether a block that has come over l ends in the middle, with the connection.
func (l *half) cuts(p *packet) bool {
	h := l.from
	if p.msg != nil || !h.w.chance(h.truncate) {
		return false
	}
	h.w.trace.note("%v %s to %s ends in the middle of a block\n", h.w.now, h.name, l.to.name)
	l.to.heard(l, int64(p.block.Size())/2)
	h.w.Cut(l.to, h)
	h.w.After(rejoinAfter, func() { h.w.rejoin(h, l.to) })
	return true
}

// pieces sends a message that takes long: each piece at the rate that the line has then.
func (h *Host) pieces(l *half, p *packet, left int64) {
	w := h.w
	n := min(left, max(1, int64(h.cfg.Up*pieceTime.Seconds())))
	d := took(n, h.cfg.Up)
	life := h.life
	w.After(d+h.upDebt, func() {
		switch {
		case h.life != life:
		case !l.open:
			h.sending = false // the rest is never sent
			h.pump()
		case left > n:
			w.After(l.c.latency, func() { l.to.heard(l, n) })
			h.pieces(l, p, left-n)
		default:
			p.tail = d
			w.plan(l.c.latency, p, enters)
			p.left()
		}
	})
	h.upDebt = 0
}

// visit lets a stranger come, want what is not there, and leave.
func (h *Host) visit(stay time.Duration) {
	w := h.w
	if !h.alive {
		return
	}
	s := w.Add(HostConfig{Version: h.cfg.Version, Faults: Faults{Mute: true, Flood: 300}})
	w.Connect(s, h)
	w.After(stay, s.Crash)
}
