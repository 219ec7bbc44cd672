package main

import "time"

// shedAfter is how long after the start the daemon gives back what only the start needed.
const shedAfter = 3 * time.Second

// startShedding has the system unmap the program's own pages, once, and returns what ends that. The start has run through most of
// the program, which the system maps with much of what lies beside it; what the daemon goes on to need of it, it finds again in
// the page cache. The rest is no longer held against it where memory is counted.
func (h *house) startShedding() (end func()) {
	return watch(func(done <-chan struct{}) {
		t := time.NewTimer(shedAfter)
		defer t.Stop()
		select {
		case <-t.C:
		case <-done:
			return
		}
		if n, err := shed(); err != nil {
			h.env.log().Debug("the program's pages were kept", "err", err)
		} else {
			h.env.log().Debug("the program's pages were given back", "bytes", n)
		}
	})
}
