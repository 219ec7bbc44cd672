package sim

// Darken takes hosts off the network, or puts them back: their connections break, which both sides notice, and nobody can be
// dialled from there or there. Blocks and sessions stay as they are.
func (w *World) Darken(dark bool, hosts ...*Host) {
	for _, h := range hosts {
		w.trace.note("%v dark %v %s\n", w.now, dark, h.name)
		h.dark = dark
		for dark && len(h.halves) > 0 {
			w.Cut(h, h.halves[0].to)
		}
	}
}

// apart reports whether one of two hosts is off the network.
func (h *Host) apart(o *Host) bool { return h.dark || o.dark }
