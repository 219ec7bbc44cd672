package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dray"
	"dray/exchange"
	"dray/node"
)

var cmdLimit = &cobra.Command{
	Use:   "limit",
	Short: "limit what goes up and down, and rank peers",
	Long: `Limit bounds the bytes of blocks a second that this home's dray sends (--up) and asks for (--down), in all and for each
peer (--peer-up, --peer-down). A running daemon follows at once, and what was set is kept in the home for the next one. A limit that
is not named stays as it is; RATE is like 10MB/s, 2.5MiB/s or 100Mbit/s, and off takes the limit away. --off takes all of them away.

With --peer and --class a peer is treated better or worse than others: best-effort gets half a share, normal one, high two and
critical four, both of the limits for each peer and of what is sent when more is wanted than there is room for. Which peers
are connected says ` + "`dray peers`" + `.

Without flags it shows the limits, what passes now, and whether they hold anything back. With --json it prints {"up":…,"down":…,
"peer_up":…,"peer_down":…,"classes":{PEER:CLASS},"running":…,"up_rate":…,"down_rate":…,"up_limited":…,"down_limited":…},
in bytes a second; 0 is no limit.`,
	Example: `  dray limit
  dray limit --up 10MB/s --down 500Mbit/s
  dray limit --peer-up 2MB/s
  dray limit --peer 12D3KooW… --class high
  dray limit --off`,
	Args: arguments(0, 0, ""),
}

// limitRequest changes what is set in it.
type limitRequest struct {
	Up       *int64 `json:"up,omitempty"`
	Down     *int64 `json:"down,omitempty"`
	PeerUp   *int64 `json:"peer_up,omitempty"`
	PeerDown *int64 `json:"peer_down,omitempty"`
	Off      bool   `json:"off,omitempty"`
	Peer     string `json:"peer,omitempty"`
	Class    string `json:"class,omitempty"`
}

func (q limitRequest) empty() bool {
	return q.Up == nil && q.Down == nil && q.PeerUp == nil && q.PeerDown == nil && !q.Off && q.Peer == ""
}

// savedLimits is what the home remembers, in limits.json.
type savedLimits struct {
	Up       int64             `json:"up"`
	Down     int64             `json:"down"`
	PeerUp   int64             `json:"peer_up"`
	PeerDown int64             `json:"peer_down"`
	Classes  map[string]string `json:"classes"`
}

// limitResult is what is in force and what it does.
type limitResult struct {
	savedLimits
	Running     bool  `json:"running"`
	UpRate      int64 `json:"up_rate"`
	DownRate    int64 `json:"down_rate"`
	UpLimited   bool  `json:"up_limited"`
	DownLimited bool  `json:"down_limited"`
}

const (
	limitsName = "limits.json"
	ledgerName = "ledger"
	// maxLimitsFile bounds the file: 16,384 peers and more.
	maxLimitsFile = 2 << 20
	maxClasses    = 1 << 14
)

var taskLimit = task[limitRequest, nothing, limitResult]{name: "limit", run: limitHere}

func newLimit(e *env) *cobra.Command {
	var up, down, peerUp, peerDown rate
	var q limitRequest
	c := bind(e, cmdLimit, func(ctx context.Context, e *env, _ []string) error {
		for _, f := range []struct {
			from *rate
			to   **int64
		}{{&up, &q.Up}, {&down, &q.Down}, {&peerUp, &q.PeerUp}, {&peerDown, &q.PeerDown}} {
			if f.from.given {
				*f.to = &f.from.bytes
			}
		}
		return runLimit(ctx, e, q)
	})
	f := c.Flags()
	f.Var(&up, "up", "most bytes a second to send, to all peers together; off for no limit")
	f.Var(&down, "down", "most bytes a second to ask for, of all peers together")
	f.Var(&peerUp, "peer-up", "most bytes a second to send to each peer")
	f.Var(&peerDown, "peer-down", "most bytes a second to ask of each peer")
	f.BoolVar(&q.Off, "off", false, "take all limits away; classes stay")
	f.StringVar(&q.Peer, "peer", "", "id of the peer whose class is set")
	f.StringVar(&q.Class, "class", "", "how to treat that peer: best-effort, normal, high or critical")
	_ = c.RegisterFlagCompletionFunc("class",
		cobra.FixedCompletions(exchange.ServiceNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// limitFlags adds --limit-up and --limit-down, which hold while the command runs.
func limitFlags(e *env, c *cobra.Command) {
	c.Flags().Var(&e.limitUp, "limit-up", "most bytes a second to send while this runs, such as 10MB/s; see dray limit")
	c.Flags().Var(&e.limitDown, "limit-down", "most bytes a second to ask for while this runs")
}

// uselessLimits is the error when such a flag is given and a daemon does the work.
func (e *env) uselessLimits(home string) error {
	if !e.limitUp.given && !e.limitDown.given {
		return nil
	}
	return usagef("a daemon serves %s already, so --limit-up and --limit-down have no use; "+
		"`dray limit --up RATE --down RATE` changes the daemon's", home)
}

func runLimit(ctx context.Context, e *env, q limitRequest) error {
	if err := q.check(); err != nil {
		return err
	}
	home, err := e.home()
	if err != nil {
		return err
	}
	r, err := dialRemote(ctx, home)
	if err != nil {
		return err
	}
	var result limitResult
	if r != nil {
		defer r.Close()
		result, err = taskLimit.do(ctx, r, q, pipes[nothing]{})
	} else {
		result.savedLimits, err = changeLimits(home, q)
	}
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(result)
	}
	result.print(e)
	if r == nil {
		e.tell("no daemon runs on %s; these are for the next one", home)
	}
	return nil
}

// check says what is wrong with a request.
func (q limitRequest) check() error {
	switch {
	case q.Peer == "" && q.Class != "":
		return usagef("--class needs a peer; name it with --peer, as `dray peers` shows it")
	case q.Peer != "" && q.Class == "":
		return usagef("--peer needs a class; add --class with one of %s", strings.Join(exchange.ServiceNames(), ", "))
	case q.Off && (q.Up != nil || q.Down != nil || q.PeerUp != nil || q.PeerDown != nil):
		return usagef("--off takes all limits away; leave out the others")
	case q.Peer == "":
		return nil
	}
	if _, err := exchange.ParseService(q.Class); err != nil {
		return usagef("there is no class %q%s", clip(q.Class),
			suggest(q.Class, exchange.ServiceNames(), "there are "+strings.Join(exchange.ServiceNames(), ", ")))
	}
	if _, err := dray.ParsePeerID(q.Peer); err != nil {
		return usagef("%q is no peer id; right is one like 12D3KooW…, as `dray peers` shows it", clip(q.Peer))
	}
	return nil
}

// limitHere changes what the home remembers and, to the same extent, what is in force.
func limitHere(_ context.Context, h *house, q limitRequest, _ pipes[nothing]) (limitResult, error) {
	if err := q.check(); err != nil {
		return limitResult{}, err
	}
	if _, err := changeLimits(h.home, q); err != nil {
		return limitResult{}, err
	}
	now := h.node.Limits()
	if !q.empty() {
		s := savedLimits{Up: now.Limits.Up, Down: now.Limits.Down, PeerUp: now.Limits.PeerUp, PeerDown: now.Limits.PeerDown}
		s.change(q)
		h.node.SetLimits(s.limits())
		s.classify(h.node)
		now = h.node.Limits()
	}
	l := now.Limits
	out := limitResult{
		savedLimits: savedLimits{Up: l.Up, Down: l.Down, PeerUp: l.PeerUp, PeerDown: l.PeerDown, Classes: map[string]string{}},
		Running:     true, UpRate: int64(now.UpRate), DownRate: int64(now.DownRate), UpLimited: now.Up, DownLimited: now.Down,
	}
	for _, p := range now.Services {
		out.Classes[p.Peer.String()] = p.Service.String()
	}
	return out, nil
}

func (s *savedLimits) limits() exchange.Limits {
	return exchange.Limits{Up: s.Up, Down: s.Down, PeerUp: s.PeerUp, PeerDown: s.PeerDown}
}

// change does what a checked request says.
func (s *savedLimits) change(q limitRequest) {
	if q.Off {
		s.Up, s.Down, s.PeerUp, s.PeerDown = 0, 0, 0, 0
	}
	for _, f := range []struct {
		from *int64
		to   *int64
	}{{q.Up, &s.Up}, {q.Down, &s.Down}, {q.PeerUp, &s.PeerUp}, {q.PeerDown, &s.PeerDown}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if q.Peer != "" {
		if s.Classes == nil {
			s.Classes = make(map[string]string)
		}
		s.Classes[q.Peer] = q.Class
	}
}

// classify tells a node the classes.
func (s *savedLimits) classify(n *node.Node) {
	for peer, class := range s.Classes {
		id, err := dray.ParsePeerID(peer)
		service, bad := exchange.ParseService(class)
		if err == nil && bad == nil { // both were checked when they were read
			n.SetService(id, service)
		}
	}
}

// changeLimits changes what the home remembers, if there is anything to change, and returns it.
func changeLimits(home string, q limitRequest) (savedLimits, error) {
	s, err := loadLimits(home)
	if err != nil && !q.Off {
		return s, err
	}
	if s.Classes == nil {
		s.Classes = map[string]string{}
	}
	if q.empty() {
		return s, nil
	}
	s.change(q)
	if q.Class == exchange.ServiceNormal.String() {
		delete(s.Classes, q.Peer)
	}
	if len(s.Classes) > maxClasses {
		return s, fmt.Errorf("there are %d peers with a class already; set some to normal first", maxClasses)
	}
	if err := makeHome(home); err != nil {
		return s, err
	}
	return s, saveLimits(home, s)
}

// loadLimits reads what the home remembers; nothing is no limits.
func loadLimits(home string) (savedLimits, error) {
	path := filepath.Join(home, limitsName)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return savedLimits{}, nil
	}
	if err != nil {
		return savedLimits{}, err
	}
	defer f.Close()
	var s savedLimits
	d := json.NewDecoder(io.LimitReader(f, maxLimitsFile))
	d.DisallowUnknownFields()
	err = d.Decode(&s)
	if err == nil && min(s.Up, s.Down, s.PeerUp, s.PeerDown) < 0 {
		err = errors.New("a limit is negative")
	}
	for peer, class := range s.Classes {
		if err == nil {
			err = limitRequest{Peer: peer, Class: class}.check()
		}
	}
	if err != nil {
		return savedLimits{}, fmt.Errorf("the limits in %s cannot be read (%w); mend the file, or remove all limits with "+
			"`dray limit --off`", path, err)
	}
	return s, nil
}

func saveLimits(home string, s savedLimits) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(home, limitsName)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// beLimited gives a node that is about to be made the home's limits, or those of the command line, and its ledger.
func (h *house) beLimited(cfg *node.Config) (savedLimits, error) {
	s, err := loadLimits(h.home)
	if err != nil {
		return s, err
	}
	cfg.Engine.Limits = s.limits()
	if h.env.limitUp.given {
		cfg.Engine.Limits.Up = h.env.limitUp.bytes
	}
	if h.env.limitDown.given {
		cfg.Engine.Limits.Down = h.env.limitDown.bytes
	}
	cfg.Ledger, err = node.OpenLedger(filepath.Join(h.home, ledgerName))
	if err != nil {
		h.env.tell("warning: the ledger cannot be read (%s); what passed with each peer before is forgotten", oneLine(err))
	}
	return s, nil
}

func (r *limitResult) print(e *env) {
	for _, l := range []struct {
		name    string
		limit   int64
		total   bool
		rate    int64
		limited bool
	}{
		{"up", r.Up, true, r.UpRate, r.UpLimited},
		{"down", r.Down, true, r.DownRate, r.DownLimited},
		{"up, each peer", r.PeerUp, false, 0, false},
		{"down, each peer", r.PeerDown, false, 0, false},
	} {
		line := fmt.Sprintf("%-16s %s", l.name, rateName(l.limit))
		if r.Running && l.total {
			line += fmt.Sprintf("  now %s/s", size(l.rate))
			if l.limited {
				line += ", held back"
			}
		}
		e.printf("%s", line)
	}
	peers := make([]string, 0, len(r.Classes))
	for p := range r.Classes {
		peers = append(peers, p)
	}
	slices.Sort(peers)
	for _, p := range peers {
		e.printf("peer %s %s", p, r.Classes[p])
	}
}
