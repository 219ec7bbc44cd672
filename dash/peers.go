package dash

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// peerView is one peer that is connected, or that the node dials or stays away from.
type peerView struct {
	ID        string `json:"id"`
	Connected bool   `json:"connected"`

	// Path says whether the way there is direct or relayed, and over what.
	Path      string `json:"path,omitempty"`
	Remote    string `json:"remote,omitempty"`
	Transport string `json:"transport,omitempty"`
	Security  string `json:"security,omitempty"`
	Data      string `json:"data,omitempty"`
	Relayed   bool   `json:"relayed,omitempty"`
	Inbound   bool   `json:"inbound,omitempty"`
	Protocol  string `json:"protocol,omitempty"`

	Sent     int64 `json:"sent"`
	Received int64 `json:"received"`
	// Up and Down are what passes now, in bytes a second.
	Up   float64 `json:"up"`
	Down float64 `json:"down"`
	RTT  float64 `json:"rtt_ms"`

	Health string `json:"health"`
	// Until is when the state ends by itself, in milliseconds since 1970; 0 when nobody knows.
	Until    int64  `json:"until,omitempty"`
	Why      string `json:"why,omitempty"`
	Failures int    `json:"failures,omitempty"`
	// Service is how it is treated beside others, if that is not as they are.
	Service string `json:"service,omitempty"`
}

type peersView struct {
	List []peerView `json:"list"`
	More int        `json:"more"`
}

func (v *view) peers(now time.Time) peersView {
	n := v.cfg.Node
	var list []peerView
	services := make(map[string]string)
	for _, s := range n.Limits().Services {
		services[s.Peer.String()] = s.Service.String()
	}
	for _, r := range v.rates {
		r.seen = false
	}
	for _, p := range append(n.Peers(), n.Absent()...) {
		h := p.Health
		x := peerView{
			ID: p.ID.String(), Connected: h.Connected, Path: p.Info.String(), Remote: p.Info.Remote, Transport: p.Info.Transport, Security: p.Info.Security,
			Data: p.Info.DataPlane, Relayed: p.Info.Relayed, Inbound: p.Info.Inbound, Protocol: p.Protocol,
			Sent: p.Account.Sent, Received: p.Account.Received, RTT: math.Round(millis(h.RTT)*10) / 10,
			Health: words(h.State.String()), Why: h.Detail, Failures: h.Failures, Service: services[p.ID.String()],
		}
		if p.Left > 0 {
			x.Until = now.Add(p.Left).Round(time.Second).UnixMilli()
		}
		r := v.rates[p.ID]
		if r == nil {
			r = &rates{sent: p.Account.Sent, got: p.Account.Received, at: now}
			v.rates[p.ID] = r
		}
		x.Up, x.Down = r.take(now, p.Account.Sent, p.Account.Received)
		list = append(list, x)
	}
	for id, r := range v.rates {
		if !r.seen {
			delete(v.rates, id)
		}
	}
	slices.SortFunc(list, func(a, b peerView) int {
		if c := cmp.Compare(b.Up+b.Down, a.Up+a.Down); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
	more := max(len(list)-shownPeers, 0)
	return peersView{List: append([]peerView{}, list[:len(list)-more]...), More: more}
}

// take brings the rates up to date.
func (r *rates) take(now time.Time, sent, got int64) (up, down float64) {
	r.seen = true
	if d := now.Sub(r.at); d > 0 {
		w := 1.0
		if d < 5*ratesOver { // else what was is long ago
			w = 1 - math.Exp(-d.Seconds()/ratesOver.Seconds())
		}
		r.up += w * (float64(max(sent-r.sent, 0))/d.Seconds() - r.up)
		r.down += w * (float64(max(got-r.got, 0))/d.Seconds() - r.down)
		r.sent, r.got, r.at = sent, got, now
	}
	if r.up < 1 {
		r.up = 0 // so that what stands still stands still on the page
	}
	if r.down < 1 {
		r.down = 0
	}
	return math.Round(r.up), math.Round(r.down)
}

// words writes a name of a state, such as BackedOff, for people.
func words(name string) string {
	if name == "BackedOff" {
		return "backed off"
	}
	return strings.ToLower(name)
}
