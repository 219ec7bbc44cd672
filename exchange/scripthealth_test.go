package exchange

import (
	"errors"
	"strings"
	"time"

	"dray"
)

// health runs the commands that are about the health of peers.
//
//	near A                    its address is on a LAN
//	address A                 a new address of it became known
//	probed A 3ms, probed A -  a probe was answered, or not
//	ban A 1h because, unban A
//	health A B                what is thought of them
//	view                      what is thought of the network
func (s *script) health(name string, args []string) {
	id := func() dray.PeerID { return dray.PeerID(args[0]) }
	switch name {
	case "near":
		s.e.Near(s.now, id())
	case "address":
		s.e.Addressed(s.now, id())
	case "probed":
		if args[1] == "-" {
			s.e.Probed(s.now, id(), 0, errors.New("no answer"))
		} else {
			s.e.Probed(s.now, id(), s.duration(args[1]), nil)
		}
	case "ban":
		s.e.Ban(s.now, id(), s.now+s.duration(args[1]), strings.Join(args[2:], " "))
	case "unban":
		s.printf("%v\n", s.e.Unban(s.now, id()))
	case "health":
		for _, a := range args {
			h := s.e.Health(dray.PeerID(a))
			s.printf("%s %v", a, h.State)
			if h.Until > 0 {
				s.printf(" for %v", (h.Until - s.now).Round(10*time.Millisecond))
			}
			if h.Failures > 0 {
				s.printf(", %d failures", h.Failures)
			}
			if h.Detail != "" {
				s.printf(", %v: %s", h.Reason, h.Detail)
			}
			s.printf("\n")
		}
	case "view":
		s.printf("%v, %v\n", s.e.PartitionState(), s.e.Mode())
	}
}
