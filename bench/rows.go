package main

import "fmt"

// row is one pairing of a server and a client over one data set.
type row struct {
	// net is "loop" or "link".
	net string
	// set names the data set: "file", "list", "star" or "add".
	set string
	// profile is how a file is cut; empty for what is not a file.
	profile string
	// client and server are parties. For "add" there is no server.
	client, server string
	// walk makes boxo fetch the graph and write no file.
	walk bool
}

// String names the row, for -run and the report.
func (r row) String() string {
	s := r.net + "/" + r.set
	if r.profile != "" {
		s += "/" + r.profile
	}
	return s + "/" + r.pairing()
}

// pairing names the parties.
func (r row) pairing() string {
	switch {
	case r.server == "":
		return r.client
	case r.walk:
		return fmt.Sprintf("%s-walk-from-%s", r.client, r.server)
	}
	return fmt.Sprintf("%s-from-%s", r.client, r.server)
}

// group is what the rows that are compared with each other have in common.
func (r row) group() string { return row{net: r.net, set: r.set, profile: r.profile}.prefix() }

func (r row) prefix() string {
	if r.profile == "" {
		return r.net + "/" + r.set
	}
	return r.net + "/" + r.set + "/" + r.profile
}

// allRows lists every row in the order in which a round runs them.
func allRows() []row {
	var rows []row
	pairs := func(net, set, profile string, parties ...[2]string) {
		for _, p := range parties {
			rows = append(rows, row{net: net, set: set, profile: profile, client: p[0], server: p[1]})
		}
	}
	var (
		ideal    = [2]string{"ideal", "ideal"}
		p2p      = [2]string{"p2p", "p2p"}
		boxoBoxo = [2]string{"boxo", "boxo"}
		drayDray = [2]string{"dray", "dray"}
		drayBoxo = [2]string{"dray", "boxo"}
		boxoDray = [2]string{"boxo", "dray"}
	)
	for _, p := range profiles {
		if p.madeBy == "" {
			pairs("loop", "file", p.name, ideal, p2p, boxoBoxo, drayDray, drayBoxo, boxoDray)
		}
	}
	for _, p := range profiles {
		if p.madeBy == "" {
			rows = append(rows,
				row{net: "loop", set: "add", profile: p.name, client: "hash"},
				row{net: "loop", set: "add", profile: p.name, client: "boxo"},
				row{net: "loop", set: "add", profile: p.name, client: "dray"})
		}
	}
	for _, p := range profiles {
		pairs("link", "file", p.name, ideal, p2p, boxoBoxo)
		rows = append(rows, row{net: "link", set: "file", profile: p.name, client: "boxo", server: "boxo", walk: true})
		pairs("link", "file", p.name, drayDray, drayBoxo, boxoDray)
	}
	for _, set := range []string{"list", "star"} {
		pairs("link", set, "", boxoBoxo, drayDray, drayBoxo, boxoDray)
	}
	return rows
}
