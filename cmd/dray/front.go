package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"dray/node"
	"dray/settings"
)

// A front is a face of the daemon for other people's clients over HTTP: the gateway, the Hub, the page and so on. Each has a
// file of its own, which says how it is opened and which paths are its.
//
// A front's handler is called for requests that have passed the guard, see httpguard.go: it need not look at the token, at
// Host or at Origin. The header Authorization is there only when it is not the daemon's own token. Bodies are bounded by
// maxBody and may take stallTime between two pieces. The request's context ends when the client is gone or the daemon has
// drained for long enough.

// front is one of them.
type front struct {
	name string
	// open makes it ready, or returns no routes when the settings have it off.
	open func(ctx context.Context, h *house, s settings.Settings) (opened, error)
}

// opened is a front that is ready.
type opened struct {
	routes []route
	// probe tells what is wrong with it, if anything, and heeds its context; it is called every half minute, see
	// [node.Node.Watch]. What it says is shown by `dray status` and /healthz under the front's name. It may be nil.
	probe func(ctx context.Context) error
	// worst is the worst that probe may make of the daemon; if Unknown, anything.
	worst node.Condition
	// close ends what it runs, after its last request. It may be nil.
	close func() error
}

// route gives the paths that begin with prefix to a handler. A prefix that ends in a slash means what is below it, and one
// without means that path alone; so does "/". The longest prefix counts; the empty one is for all that nobody else has.
type route struct {
	prefix  string
	handler http.Handler
}

// fronts lists them all.
var fronts = []front{
	{"health", openHealth},
	{"profiles", openProfiles},
	{"gateway", openGateway},
	{"metrics", openMetrics},
	{"identity", openIdentity},
	{"dash", openDash},
	{"hub", openHub},
	{"routing", openRouting},
	{"edge", openEdge},
}

// router returns a handler that finds the route of a path.
func router(routes []route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var best *route
		for i := range routes {
			x := &routes[i]
			fits := x.prefix == "" || r.URL.Path == x.prefix ||
				len(x.prefix) > 1 && strings.HasSuffix(x.prefix, "/") && strings.HasPrefix(r.URL.Path, x.prefix)
			if fits && (best == nil || len(x.prefix) > len(best.prefix)) {
				best = x
			}
		}
		if best == nil {
			http.NotFound(w, r)
			return
		}
		best.handler.ServeHTTP(w, r)
	})
}

const configName = "config.toml"

func configPath(home string) string { return filepath.Join(home, configName) }

// readSettings returns what the home's file says, and what overrides it. What it has read once it does not read again.
func (e *env) readSettings(home string) (*settings.Effective, error) {
	if e.told != nil && e.toldOf == home {
		return e.told, nil
	}
	in := settings.Input{File: configPath(home), Env: os.Environ(), Flags: e.settingFlags()}
	text, err := os.ReadFile(in.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	in.Text = text
	s, err := settings.Read(in)
	if err != nil {
		return nil, fmt.Errorf("the settings make no sense, so nothing was started:\n%w\n`dray config check` reads them again", err)
	}
	e.told, e.toldOf = s, home
	return s, nil
}

// settingFlags returns what the command line says about settings.
func (e *env) settingFlags() []settings.Flag {
	var list []settings.Flag
	if e.http != "" {
		list = append(list, settings.Flag{Name: "--http", Key: "http.listen", Text: e.http})
	}
	if e.relay {
		list = append(list, settings.Flag{Name: "--relay", Key: "reach.relay", Text: "true"})
	}
	if e.preset != "" {
		list = append(list, settings.Flag{Name: "--preset", Key: "preset", Text: e.preset})
	}
	if e.upstream != "" {
		list = append(list, settings.Flag{Name: "--upstream", Key: "upstream.url", Text: e.upstream})
	}
	if e.verbose {
		list = append(list, settings.Flag{Name: "--verbose", Key: "log.level", Text: "info"})
	}
	return list
}
