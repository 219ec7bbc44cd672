package dash

import (
	"time"

	"dray/node"
)

// transferView is one transfer. Times are milliseconds since 1970, durations seconds.
type transferView struct {
	ID    uint64 `json:"id"`
	Kind  string `json:"kind"`
	State string `json:"state"`
	Who   string `json:"who,omitempty"`
	Name  string `json:"name,omitempty"`
	Path  string `json:"path,omitempty"`
	Root  string `json:"root,omitempty"`
	Error string `json:"error,omitempty"`

	Began int64 `json:"began"`
	Ended int64 `json:"ended,omitempty"`
	Moved int64 `json:"moved"`

	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Known says that Total is final.
	Known      bool    `json:"known"`
	Duplicates int64   `json:"duplicates"`
	Files      int     `json:"files"`
	Rate       float64 `json:"rate"`
	// Left is null when nobody can tell.
	Left *float64 `json:"left"`

	// Gifts say where the bytes came from; they add up to Done.
	Gifts []giftView `json:"gifts"`
	// Stalled says that nothing has come since Moved although something is missing, and Why why.
	Stalled bool       `json:"stalled,omitempty"`
	Why     string     `json:"why,omitempty"`
	Waits   []waitView `json:"waits"`
}

type giftView struct {
	Kind  string  `json:"kind"`
	Peer  string  `json:"peer,omitempty"`
	Name  string  `json:"name,omitempty"`
	Bytes int64   `json:"bytes"`
	Rate  float64 `json:"rate"`
	// Duplicates is what a peer sent besides that had come already.
	Duplicates int64 `json:"duplicates,omitempty"`
}

// waitView is one reason why nothing more is there.
type waitView struct {
	Reason string  `json:"reason"`
	Peer   string  `json:"peer,omitempty"`
	Since  int64   `json:"since"`
	Until  int64   `json:"until,omitempty"`
	Blocks int     `json:"blocks,omitempty"`
	Bytes  int64   `json:"bytes,omitempty"`
	Rate   float64 `json:"rate,omitempty"`
	Error  string  `json:"error,omitempty"`
}

type runningView struct {
	List []transferView `json:"list"`
	More int            `json:"more"`
}

func (v *view) running(l *node.TransferList, now time.Time) runningView {
	x := runningView{List: []transferView{}, More: l.More + max(len(l.Running)-shownTransfers, 0)}
	for i := range l.Running[:min(len(l.Running), shownTransfers)] {
		x.List = append(x.List, v.cfg.transfer(&l.Running[i], now))
	}
	return x
}

func (v *view) ended(l *node.TransferList, now time.Time) []transferView {
	x := []transferView{}
	for i := range l.Ended[:min(len(l.Ended), shownEnded)] {
		x = append(x, v.cfg.transfer(&l.Ended[i], now))
	}
	return x
}

func (c *Config) transfer(t *node.Transfer, now time.Time) transferView {
	p := &t.Progress
	x := transferView{
		ID: t.ID, Kind: string(t.Kind), State: string(t.State), Who: t.Origin.Who, Name: t.Origin.Name, Path: t.Path,
		Began: t.Began.UnixMilli(), Moved: t.Moved.UnixMilli(),
		Done: p.Done, Total: p.Total, Known: p.Walked, Duplicates: p.Duplicates, Files: p.Files, Rate: t.Rate,
		Gifts: []giftView{}, Waits: []waitView{},
	}
	if p.Root.Defined() {
		x.Root = p.Root.String()
	}
	if t.Err != nil {
		x.Error = t.Err.Error()
	}
	if !t.Ended.IsZero() {
		x.Ended = t.Ended.UnixMilli()
	}
	idle := t.Stalled(now)
	if t.Left >= 0 && idle == 0 {
		left := t.Left.Round(time.Second).Seconds()
		x.Left = &left
	}
	for _, g := range t.Gifts {
		x.Gifts = append(x.Gifts, giftView{string(g.Kind), g.Peer.String(), g.Name, g.Bytes, g.Rate, g.Duplicates})
	}
	if x.Stalled = idle > 0; !x.Stalled {
		return x
	}
	for _, w := range t.Waits[:min(len(t.Waits), shownWaits)] {
		y := waitView{
			Reason: w.Reason.String(), Peer: w.Peer.String(), Since: w.Since.UnixMilli(), Blocks: w.Blocks, Bytes: w.Bytes, Rate: w.Rate,
		}
		if !w.Until.IsZero() {
			y.Until = w.Until.UnixMilli()
		}
		if w.Err != nil {
			y.Error = w.Err.Error()
		}
		x.Waits = append(x.Waits, y)
	}
	if x.Why = t.Waits[0].Reason.String(); c.Explain != nil {
		x.Why = c.Explain(t.Waits, idle)
	}
	return x
}

// detailView is a transfer with its pieces.
type detailView struct {
	transferView
	Leaves int `json:"leaves"`
	// Peers are who is named in Cells, by index.
	Peers []string `json:"peers"`
	// Cells are runs of leaves: how many, here, of which reused, asked, who gave the most, who is asked for the most (indexes, or
	// -1), copies among peers (or -1).
	Cells [][7]int `json:"cells"`
	// Givers are the connected peers that could give something, and what they do now.
	Givers []giverView `json:"givers"`
}

// giverView is one peer's part in a transfer now.
type giverView struct {
	Peer   string `json:"peer"`
	Health string `json:"health"`
	// Asked is how many blocks it is expected to send, and Bytes their size.
	Asked int   `json:"asked"`
	Bytes int64 `json:"bytes"`
	// Delivered is what the transfer had of it.
	Delivered int64   `json:"delivered"`
	Rate      float64 `json:"rate"`
	RTT       float64 `json:"rtt_ms"`
	Silent    float64 `json:"silent"`
	Lacks     bool    `json:"lacks,omitempty"`
	Denied    bool    `json:"denied,omitempty"`
}

const shownGivers = 64

func (s *Server) detail(t *node.Transfer, m *node.PieceMap, now time.Time) detailView {
	x := detailView{
		transferView: s.cfg.transfer(t, now), Leaves: m.Leaves, Peers: []string{}, Cells: make([][7]int, 0, len(m.Cells)), Givers: []giverView{},
	}
	at := make(map[string]int)
	index := func(peer string) int {
		if peer == "" {
			return -1
		}
		i, known := at[peer]
		if !known {
			i = len(x.Peers)
			at[peer] = i
			x.Peers = append(x.Peers, peer)
		}
		return i
	}
	for _, g := range x.Gifts { // in the order in which the page colours them
		index(g.Peer)
	}
	for _, c := range m.Cells {
		x.Cells = append(x.Cells, [7]int{c.Leaves, c.Here, c.Reused, c.Asked, index(c.From.String()), index(c.Of.String()), c.Copies})
	}
	if t.State != node.TransferRunning {
		return x
	}
	for _, p := range t.Progress.Peers[:min(len(t.Progress.Peers), shownGivers)] {
		x.Givers = append(x.Givers, giverView{
			Peer: p.Peer.String(), Health: words(p.Health.String()), Asked: p.Asked, Bytes: p.Bytes, Delivered: p.Delivered, Rate: p.Rate,
			RTT: millis(p.RTT), Silent: p.Silent.Seconds(), Lacks: p.Lacks, Denied: p.Denied,
		})
	}
	return x
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
