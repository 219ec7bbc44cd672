package main

import (
	"flag"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// options are what the command line of a suite sets.
type options struct {
	dir  string
	dray string
	ipfs string
	// The sizes are in bytes.
	size, linkSize, swarmSize, sparseSize int64
	listNodes, starBlocks                 int
	rounds                                int
	only, skip                            *regexp.Regexp
	delay                                 time.Duration
	rate                                  float64
	conns                                 int
	// linkConns is conns over the link.
	linkConns int
	timeout   time.Duration
	list      bool
}

// perRun bounds one run of one row.
const perRun = 10 * time.Minute

// quickValues are what -quick sets, unless the command line does: every row runs, and none measures anything.
var quickValues = map[string]string{
	"size": "8", "link-size": "2", "swarm-size": "8", "sparse-size": "64", "list-nodes": "20", "star-blocks": "300",
	"rounds": "1", "link": "2ms,1000", "timeout": "1m",
}

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.dir, "dir", "out", "where the data sets, the homes and the results go; the disk that is measured")
	fs.StringVar(&o.dray, "dray", "", "the dray program; if empty, it is built from ../cmd/dray")
	fs.StringVar(&o.ipfs, "ipfs", "ipfs", "the Kubo program")
	sizeMiB := fs.Int64("size", 1024, "MiB of the file that goes over loopback")
	linkMiB := fs.Int64("link-size", 64, "MiB of the file that goes over the link")
	swarmMiB := fs.Int64("swarm-size", 256, "MiB of the file that a swarm gets")
	sparseMiB := fs.Int64("sparse-size", 10240, "MiB of the tensor file that is mostly holes")
	fs.IntVar(&o.listNodes, "list-nodes", 200, "nodes of the linked list")
	fs.IntVar(&o.starBlocks, "star-blocks", 10_000, "blocks of the star")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds")
	only := fs.String("run", "", "only rows that match this regular expression (-list shows their names)")
	skip := fs.String("skip", "", "no rows that match this regular expression")
	link := fs.String("link", "25ms,1000", "the link: delay each way, Mbit/s each way")
	fs.IntVar(&o.conns, "conns", 2, "connections (p2p: streams) of the ideal over loopback")
	fs.IntVar(&o.linkConns, "link-conns", 1, "connections (p2p: streams) of the ideal over the link")
	fs.DurationVar(&o.timeout, "timeout", perRun, "longest time for one run of one row")
	fs.BoolVar(&o.list, "list", false, "print the rows' names and end")
	quick := fs.Bool("quick", false, "run everything once at a tiny size, to see that it works; the figures mean nothing")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("argument %q: there are only flags", fs.Arg(0))
	}
	if *quick {
		given := map[string]bool{}
		fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range quickValues {
			if given[name] {
				continue
			}
			if err := fs.Set(name, value); err != nil {
				return o, err
			}
		}
	}
	o.size, o.linkSize, o.swarmSize, o.sparseSize = *sizeMiB<<20, *linkMiB<<20, *swarmMiB<<20, *sparseMiB<<20
	var err error
	if o.delay, o.rate, err = parseLink(*link); err != nil {
		return o, err
	}
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, err
	}
	if *skip != "" {
		if o.skip, err = regexp.Compile(*skip); err != nil {
			return o, err
		}
	}
	return o, nil
}

// parseLink reads a delay and a rate, such as 25ms,1000, and returns the rate in bits a second.
func parseLink(link string) (time.Duration, float64, error) {
	first, second, ok := strings.Cut(link, ",")
	if !ok {
		return 0, 0, fmt.Errorf("-link %q: want a delay and a rate, such as 25ms,1000", link)
	}
	delay, err := time.ParseDuration(first)
	if err != nil {
		return 0, 0, fmt.Errorf("-link: %w", err)
	}
	mbit, err := strconv.ParseFloat(second, 64)
	if err != nil || mbit <= 0 {
		return 0, 0, fmt.Errorf("-link %q: the rate is no positive number of Mbit/s", link)
	}
	return delay, mbit * 1e6, nil
}
