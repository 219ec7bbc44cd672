package exchange

import "github.com/ipfs/go-cid"

// Askers returns how many sessions miss c at this moment, whether or not it is being written already.
func (e *Engine) Askers(c cid.Cid) int {
	n := 0
	if w := e.wants[c]; w != nil {
		n = len(w.askers)
	}
	for _, mf := range e.manifestList {
		i, ok := mf.m.Find(c)
		if !ok {
			continue
		}
		for _, s := range mf.sessions {
			if s.demand.has(i) {
				n++
			}
		}
	}
	return n
}
