package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray/node"
)

var cmdStatus = &cobra.Command{
	Use:   "status",
	Short: "say how the daemon fares",
	Long: `Status tells how the daemon on this home fares: since when it runs, how many peers it has, and for each part of it (the
disk's reads and writes, the exchange, the space left, its listeners and doors) whether what is asked of it fails or takes long. A part is degraded after one check
of 30 s in which more than a tenth failed or the mean was over a second, unhealthy after three in a row, failed when nothing
went well in them, and healthy again after two good ones. The whole is as bad as its worst part.

It exits with 0 when all is healthy or not known yet, and with 1 otherwise or when no daemon runs. With --json it prints
{"version":…,"home":…,"peer":…,"addrs":[…],"since":…,"health":…,"parts":[{"name":…,"health":…,"since":…,"reason":…,
"operations":…,"errors":…,"latency_ms":…,"history":[…]}],"peers":…,"reach":{"standing":…,"addrs":{…},"mapped":[…],"relays":[…],"relaying":…,"lan":…,"dht":…,…},"jobs":{"running":…,…}}.`,
	Example: "  dray status",
	Args:    arguments(0, 0, ""),
}

func newStatus(e *env) *cobra.Command { return bind(e, cmdStatus, runStatus) }

// status is how a daemon fares.
type status struct {
	Version string `json:"version"`
	Home    string `json:"home"`
	identity
	Since  time.Time      `json:"since"`
	Health node.Condition `json:"health"`
	Parts  []vitalPart    `json:"parts"`
	Peers  int            `json:"peers"`
	// Reach is how others reach the daemon.
	Reach *reached `json:"reach,omitempty"`
	// Jobs counts the jobs in each state, see dray jobs.
	Jobs map[string]int `json:"jobs,omitempty"`
}

// vitalPart is how one part of it does.
type vitalPart struct {
	Name       string         `json:"name"`
	Health     node.Condition `json:"health"`
	Since      *time.Time     `json:"since,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Operations int64          `json:"operations"`
	Errors     int64          `json:"errors"`
	LatencyMS  float64        `json:"latency_ms"`
	History    []vitalTurn    `json:"history"`
}

type vitalTurn struct {
	At     time.Time      `json:"at"`
	From   node.Condition `json:"from"`
	To     node.Condition `json:"to"`
	Reason string         `json:"reason,omitempty"`
}

var taskStatus = task[nothing, nothing, status]{name: "status", run: tellStatus}

func tellStatus(_ context.Context, h *house, _ nothing, _ pipes[nothing]) (status, error) {
	s := status{
		Version: version(), Home: h.home, identity: h.identity(), Since: h.node.Since(), Peers: len(h.node.Peers()),
	}
	s.Health, s.Parts = h.vitals()
	s.Reach = h.reachability()
	for _, j := range h.jobs() {
		if s.Jobs == nil {
			s.Jobs = make(map[string]int)
		}
		s.Jobs[j.State.String()]++
	}
	return s, nil
}

// vitals tells how the parts of the daemon fare, as it is printed.
func (h *house) vitals() (whole node.Condition, list []vitalPart) {
	whole, parts := h.node.Vitals()
	for _, v := range parts {
		p := vitalPart{
			Name: v.Name, Health: v.Condition, Reason: v.Reason, Operations: v.Operations, Errors: v.Errors,
			LatencyMS: float64(v.Latency) / float64(time.Millisecond), History: []vitalTurn{},
		}
		if !v.Since.IsZero() {
			p.Since = &v.Since
		}
		for _, c := range v.History {
			p.History = append(p.History, vitalTurn{At: c.At, From: c.From, To: c.To, Reason: c.Reason})
		}
		list = append(list, p)
	}
	return whole, list
}

func runStatus(ctx context.Context, e *env, _ []string) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	r, err := dialRemote(ctx, home)
	if err != nil {
		return err
	}
	if r == nil {
		return errors.New("no daemon runs on " + home + "; `dray serve` starts one")
	}
	defer r.Close()
	s, err := taskStatus.do(ctx, r, nothing{}, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		err = e.emit(s)
	} else {
		e.printf("%s  since %s  %s  dray %s", s.Health, s.Since.Local().Format(time.DateTime), plural(int64(s.Peers), "peer"), s.Version)
		for _, p := range s.Parts {
			line := p.Name + ": " + p.Health.String()
			if p.Since != nil {
				line += " since " + p.Since.Local().Format(time.TimeOnly)
			}
			if p.Reason != "" {
				line += ", " + p.Reason
			}
			e.printf("%s", line)
		}
		if s.Reach != nil {
			s.Reach.print(e)
		}
		if len(s.Jobs) > 0 {
			var counts []string
			for _, name := range slices.Sorted(maps.Keys(s.Jobs)) {
				counts = append(counts, fmt.Sprintf("%d %s", s.Jobs[name], name))
			}
			e.printf("jobs: %s", strings.Join(counts, ", "))
		}
	}
	if err == nil && s.Health > node.Healthy {
		err = errors.New("the daemon is " + s.Health.String() + "; what is wrong stands above")
	}
	return err
}
