package sim

import "dray/exchange"

// SetLimits changes what a living host lets pass.
func (h *Host) SetLimits(l exchange.Limits) {
	h.w.trace.note("%v %s limits %v\n", h.w.now, h.name, l)
	h.e.SetLimits(h.w.now, l)
	h.kick()
}

// SetService changes how a living host treats another.
func (h *Host) SetService(o *Host, s exchange.Service) {
	h.w.trace.note("%v %s treats %s as %v\n", h.w.now, h.name, o.name, s)
	h.e.SetService(h.w.now, o.id, s)
	h.kick()
}

// Passed returns the bytes of blocks that this life of the host has sent to another, and got from it.
func (h *Host) Passed(o *Host) (gave, got int64) { return h.gave[o.id], h.got[o.id] }
