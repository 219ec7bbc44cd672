package exchange

import "dray"

// The part of the script language that is about limits:
//
//	limit up=1000 peer-down=500     bytes a second; what is not named has none
//	service A high                  how a peer is treated
//	limits                          what is in force, and of which peers nothing is asked because of it

func (s *script) limit(name string, args []string) {
	switch name {
	case "limit":
		o := options(args)
		num := func(k string) int64 {
			if o[k] == "" {
				return 0
			}
			return int64(s.number(o[k]))
		}
		s.e.SetLimits(s.now, Limits{Up: num("up"), Down: num("down"), PeerUp: num("peer-up"), PeerDown: num("peer-down")})
	case "service":
		c, err := ParseService(args[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.e.SetService(s.now, dray.PeerID(args[0]), c)
	case "limits":
		s.printf("%+v\n", s.e.Limits(s.now))
		for _, p := range s.e.upPeers {
			if s.e.Limited(p.id) {
				s.printf("limited: %s\n", string(p.id))
			}
		}
	}
}
