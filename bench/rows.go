package main

import "fmt"

// row is one pairing of a server and a client over one data set.
type row struct {
	// net is "loop" or "link".
	net string
	// set names the data set: "file", "list", "star" or "sparse"; or what else is done: "add" a file, "swarm", "gateway",
	// which is reading a file from a server without keeping it, or "hub", which is clients of a Hub.
	set string
	// profile is how a file is cut; empty for what is not a file.
	profile string
	// client and server are parties. For "add", "swarm" and "hub" there is no server.
	client, server string
	// getters is how many get the file in a swarm, or from a Hub.
	getters int
	// uplink is how many bytes a second the seed of a swarm, or the upstream, may send; 0 is as many as it can.
	uplink int64
	// walk makes boxo fetch the graph and write no file.
	walk bool
	// reads says what is read from a gateway.
	reads string
}

// String names the row, for -run and the report.
func (r row) String() string { return r.group() + "/" + r.pairing() }

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
func (r row) group() string {
	s := r.net + "/" + r.set
	if r.getters > 0 {
		s += fmt.Sprintf("-%d", r.getters)
	}
	if r.reads != "" {
		s += "-" + r.reads
	}
	if r.uplink > 0 {
		s += fmt.Sprintf("-uplink-%dMB", r.uplink/1e6)
	}
	if r.profile != "" {
		s += "/" + r.profile
	}
	return s
}

// data names the row's data set.
func (r row) data() string {
	switch {
	case r.set == "add" || r.set == "gateway":
		return "file"
	case r.set == "hub":
		return "swarm"
	case r.set == "file" && r.net == "link":
		return "link-file"
	}
	return r.set
}

// native is the profile that two Drays use between themselves.
const native = "native"

// allRows lists every row in the order in which a round runs them.
func allRows() []row {
	var rows []row
	pairs := func(net, set, profile string, parties ...[2]string) {
		for _, p := range parties {
			rows = append(rows, row{net: net, set: set, profile: profile, client: p[0], server: p[1]})
		}
	}
	same := func(name string) [2]string { return [2]string{name, name} }
	var (
		ideal, p2p         = same("ideal"), same("p2p")
		boxoBoxo, drayDray = same("boxo"), same("dray")
		drayAuth           = same("dray-auth")
		drayBoxo           = [2]string{"dray", "boxo"}
		boxoDray           = [2]string{"boxo", "dray"}
	)
	for _, p := range profiles {
		if p.madeBy != "" {
			continue
		}
		pairs("loop", "file", p.name, ideal, p2p)
		if p.name != native {
			pairs("loop", "file", p.name, boxoBoxo, drayDray, drayBoxo, boxoDray)
			continue
		}
		pairs("loop", "file", p.name, same("clear"), [2]string{"clear1", "clear"}, boxoBoxo, same("kubo"), drayDray,
			drayAuth, drayBoxo, boxoDray, [2]string{"curl", "http"}, same("torrent"), same("rsync"))
	}
	for _, p := range profiles {
		if p.madeBy == "" {
			rows = append(rows,
				row{net: "loop", set: "add", profile: p.name, client: "hash"},
				row{net: "loop", set: "add", profile: p.name, client: "boxo"},
				row{net: "loop", set: "add", profile: p.name, client: "dray"})
		}
	}
	for _, getters := range []int{4, 8} {
		for _, name := range []string{"dray", "dray-auth", "torrent", "boxo", "curl"} {
			rows = append(rows, row{net: "loop", set: "swarm", profile: native, client: name, getters: getters})
		}
	}
	// With a line that binds, as between hosts, in place of two cores that do.
	for _, name := range []string{"dray", "torrent"} {
		rows = append(rows, row{net: "loop", set: "swarm", profile: native, client: name, getters: 8, uplink: 40e6})
	}
	// Clients of a Hub, each at a dray of its own with the same upstream, or all at the upstream.
	for _, name := range []string{"dray", "curl"} {
		for _, getters := range []int{1, 3} {
			rows = append(rows, row{net: "loop", set: "hub", client: name, getters: getters, uplink: 40e6})
		}
	}
	for _, p := range profiles {
		pairs("link", "file", p.name, ideal, p2p, boxoBoxo)
		rows = append(rows, row{net: "link", set: "file", profile: p.name, client: "boxo", server: "boxo", walk: true})
		pairs("link", "file", p.name, drayDray, drayBoxo, boxoDray)
		if p.name == native {
			pairs("link", "file", p.name, [2]string{"dray-node", "dray"}, drayAuth)
		}
	}
	for _, set := range []string{"list", "star"} {
		pairs("link", set, "", boxoBoxo, drayDray, drayBoxo, boxoDray)
	}
	pairs("loop", "sparse", native, drayDray, drayAuth)
	for _, reads := range []string{readWhole, readRanges, readPieces, readCrowd} {
		for _, server := range []string{"http", "gateway"} {
			rows = append(rows, row{
				net: "loop", set: "gateway", profile: native, client: "reader", server: server, reads: reads,
			})
		}
	}
	return rows
}
