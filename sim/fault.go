package sim

import (
	"time"

	"dray/wire"
)

// Faults make a host misbehave, or its surroundings misbehave towards others. The zero value is an honest host. Probabilities are
// from 0 to 1.
type Faults struct {
	// Mute hosts read everything and answer nothing.
	Mute bool
	// Frozen hosts do not read: what is sent to them fills the connection.
	Frozen bool
	// Liar hosts answer HAVE to whatever is asked, and send nothing, or garbage with WrongBytes.
	Liar bool
	// Denier hosts answer DONT_HAVE to whatever is asked.
	Denier bool
	// WrongBytes is the probability that a block is sent with other bytes than it has.
	WrongBytes float64
	// Forget is the probability that a want is not heard.
	Forget float64
	// Swallow is the probability that a block which the engine sends is not sent.
	Swallow float64
	// Repeat is the probability that a block is sent twice.
	Repeat float64
	// Uninvited hosts send a block that nobody asked for to every peer this often.
	Uninvited time.Duration
	// Flood is how many wants for blocks that exist nowhere the host sends to each new peer.
	Flood int
	// Swap misuses what only TensorSwap has.
	Swap SwapFault
}

func (f Faults) honest() bool { return f == Faults{} }

// honest reports whether the host was honest all its life. One that was suspended, frozen or deaf for a while was.
func (h *Host) honest() bool { return h.cfg.Faults.honest() && !h.lied }

// faultsOnUp does what a faulty host does to a new peer.
func (h *Host) faultsOnUp(l *half) {
	f := h.faults
	for left := f.Flood; left > 0; left -= 512 {
		m := wire.Message{}
		for range min(left, 512) {
			r := h.w.content.add("x", 16)
			m.Wants = append(m.Wants, wire.Entry{CID: h.w.Block(r).CID(), Priority: 1, SendDontHave: true})
		}
		p := h.packet(l, &m)
		p.posed = true
		l.send(p)
	}
	if f.Uninvited > 0 {
		h.intrude(l)
	}
	h.swapFaultOnUp(l)
}

// intrude sends a block that nobody asked for, and plans the next.
func (h *Host) intrude(l *half) {
	h.during(h.faults.Uninvited, func() {
		if !l.open || h.faults.Uninvited == 0 {
			return
		}
		p := h.blockPacket(l, h.w.Block(h.w.content.add("u", 64)))
		p.posed = true
		l.send(p)
		h.intrude(l)
	})
}

// faultsOnMessage lets a faulty host look at a message first, change it, and report whether its engine is not to see it.
func (h *Host) faultsOnMessage(l *half, m *wire.Message) bool {
	f := h.faults
	if f.honest() {
		return false
	}
	if f.Mute {
		return true
	}
	h.swapFaultOnMessage(l, m)
	if f.Forget > 0 {
		kept := m.Wants[:0]
		for _, en := range m.Wants {
			if en.Cancel || !h.w.chance(f.Forget) {
				kept = append(kept, en)
			}
		}
		m.Wants = kept
	}
	if !f.Liar && !f.Denier {
		return false
	}
	var answer wire.Message
	for _, en := range m.Wants {
		switch {
		case en.Cancel:
		case f.Denier:
			answer.Presences = append(answer.Presences, wire.Presence{CID: en.CID, Leaves: en.Leaves})
		case en.Type == wire.WantHave:
			answer.Presences = append(answer.Presences, wire.Presence{CID: en.CID, Leaves: en.Leaves, Have: true})
		case h.w.chance(f.WrongBytes):
			p := h.blockPacket(l.back, h.w.Block(h.w.content.add("g", 64)))
			p.posed = true
			l.back.send(p)
		}
	}
	if len(answer.Presences) > 0 && l.c.version.Haves() {
		p := h.packet(l.back, &answer)
		p.posed = true
		l.back.send(p)
	}
	return true
}
