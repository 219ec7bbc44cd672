package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"

	"dray/settings"
	"dray/transport/p2p"
)

var cmdServe = &cobra.Command{
	Use:   "serve",
	Short: "serve what the home holds, until stopped",
	Long: `Serve lets peers get what the home holds, and lets other dray commands use this home meanwhile. It prints its peer id
and addresses and runs until SIGTERM or ^C; then it says goodbye to its peers, so that they turn to others at once, and exits
with 0.

It listens on TCP, QUIC, WebSocket and WebTransport on all interfaces, on ports that the system chooses, unless told
otherwise with --listen. Everybody is served who connects; with --admission members only those are whom ` + "`dray members`" + `
lists, and with a swarm key (` + "`dray swarm-key`" + `) nobody else can connect at all. With --quota it keeps the store's own
copies within a size, see ` + "`dray gc`" + `. Blocks travel encrypted, unless --data-plane authenticated is given here and there: then it is
certain who sends them and what they are, but whoever can listen on the line can read them.

Other Drays on the local network see it and are seen, and behind a router it is reached through relays and by holes; with --relay
it is a relay for others itself. See docs/reach.md.

HTTP is served on 127.0.0.1:4871, see docs/serve.md: gateway, Hub, page, health. What can be set stands in config.toml in the
home; ` + "`dray config`" + ` shows it, and docs/settings.md lists it.

With --json its first line is {"peer":…,"addrs":[…],"http":…}.`,
	Example: `  dray serve
  dray serve --listen /ip4/0.0.0.0/tcp/4001 --listen /ip4/0.0.0.0/udp/4001/quic-v1
  dray serve --http 127.0.0.1:0
  dray serve --upstream https://hub.example.org`,
	Args: arguments(0, 0, ""),
}

func newServe(e *env) *cobra.Command {
	var (
		listen []string
		limit  string
	)
	c := bind(e, cmdServe, func(ctx context.Context, e *env, _ []string) error { return runServe(ctx, e, listen, limit) })
	c.Flags().StringVar(&e.http, "http", "", "where HTTP is served, HOST:PORT, or off (default http.listen of the settings)")
	c.Flags().StringVar(&e.upstream, "upstream", "",
		"another Hub, such as https://hub.example.org, from which the swarm fetches once what it lacks; see docs/upstream.md")
	presetFlag(e, c)
	c.Flags().StringArrayVar(&e.trust, "trust", nil, "key that is believed about repositories: KEY or KEY=org/* (repeatable); see dray trust")
	peerFlag(e, c)
	relayFlag(e, c)
	quotaFlag(c, &limit)
	listenFlag(c, &listen)
	planeFlag(e, c)
	limitFlags(e, c)
	admissionFlag(e, c)
	return c
}

// peerFlag adds --peer, which every command has that serves.
func peerFlag(e *env, c *cobra.Command) {
	c.Flags().StringArrayVar(&e.named, "peer", nil,
		"multiaddr of a peer to stay connected to and to ask, besides find.peers of the settings (repeatable)")
}

var admissions = []string{admitOpen, admitMembers}

// admissionFlag adds --admission, which every command has that serves.
func admissionFlag(e *env, c *cobra.Command) {
	c.Flags().StringVar(&e.admission, "admission", "",
		"who is served: open (everybody, the default) or members (nobody else is served anything, nor kept connected)")
	_ = c.RegisterFlagCompletionFunc("admission", cobra.FixedCompletions(admissions, cobra.ShellCompDirectiveNoFileComp))
}

// checkAdmission says what is wrong with --admission.
func (e *env) checkAdmission() error {
	if e.admission == "" || slices.Contains(admissions, e.admission) {
		return nil
	}
	return usagef("there is no admission %q%s", e.admission, suggest(e.admission, admissions, "there are open and members"))
}

// uselessAdmission is the error when --admission is given and the daemon has chosen already.
func (e *env) uselessAdmission(home string) error {
	if e.admission == "" {
		return nil
	}
	return usagef("a daemon serves %s already, so --admission has no use; give it to the daemon, or stop that", home)
}

func listenFlag(c *cobra.Command, listen *[]string) {
	c.Flags().StringArrayVar(listen, "listen", nil,
		"multiaddr to accept connections on, such as /ip4/0.0.0.0/tcp/4001 (repeatable)")
}

func runServe(ctx context.Context, e *env, listen []string, limit string) error {
	q, err := parseQuota(limit)
	if err != nil {
		return err
	}
	d, err := startDaemon(ctx, e, listen)
	if err != nil {
		return err
	}
	end := func() {}
	d.house.quota = q
	if d.http, err = serveHTTP(ctx, d.house, d.settings.Settings); err == nil {
		d.house.watchParts()
		d.house.open.Store(true) // before anybody hears of it
		err = d.announce(e)
	}
	if err == nil {
		d.house.notify(sdReady(d))
		tended, beaten, light := d.house.startTending(q), d.house.startWatchdog(), d.house.startShedding()
		end = func() { tended(); beaten(); light() }
		<-ctx.Done()
	}
	e.tell("stopping")
	return errors.Join(err, d.stop(end))
}

// sdReady is what the service manager is told when the daemon is ready.
func sdReady(d *daemon) string {
	status := "serving " + d.house.home
	if d.http.addr != "" {
		status += " and " + d.http.url()
	}
	return "READY=1\nSTATUS=" + status
}

// daemon is a home that is open for peers and for other commands.
type daemon struct {
	house    *house
	control  *control
	settings *settings.Effective
	http     *httpServer // nil when it only shares
	unwatch  func()      // ends watching the members file
	keeping  func()      // ends what is done for kept roots
}

func startDaemon(ctx context.Context, e *env, listen []string) (*daemon, error) {
	home, err := e.home()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(e.checkPlane(), e.checkAdmission()); err != nil {
		return nil, err
	}
	config, err := e.readSettings(home)
	if err != nil {
		return nil, err
	}
	e.logAs(&config.Log)
	e.warnOfSecrets(home, config)
	swarm, err := e.findSwarmKey(home)
	if err != nil {
		return nil, err
	}
	switch {
	case !swarm.IsZero():
		e.tell("private swarm %v: TCP and WebSocket only, because QUIC and WebTransport know no swarm keys", swarm)
		if listen == nil {
			listen = p2p.PrivateListen()
		}
	case listen == nil:
		listen = p2p.DefaultListen()
	}
	for _, l := range listen {
		if err := checkListen(l); err != nil {
			return nil, err
		}
	}
	if r, err := dialRemote(ctx, home); err != nil || r != nil {
		if r != nil {
			r.Close()
			err = fmt.Errorf("a daemon serves %s already; stop it first, or serve another --home", home)
		}
		return nil, err
	}
	h, err := openHouse(e, home, access{network: true, listen: listen, admission: e.admission})
	if err != nil {
		return nil, err
	}
	if h.backlog, err = openBacklog(h, jobConfig(&config.Jobs)); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	c, err := openControl(h)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return &daemon{house: h, control: c, settings: config, unwatch: h.watchMembers(), keeping: h.startKeeping()}, nil
}

func jobConfig(s *settings.Jobs) backlogConfig {
	return backlogConfig{
		workers: s.Workers, quiet: time.Duration(s.Silence), first: time.Duration(s.First), most: time.Duration(s.Most),
		patience: time.Duration(s.Patience),
	}
}

// checkListen says what is wrong with an address to listen on.
func checkListen(s string) error {
	const right = "right is one like /ip4/0.0.0.0/tcp/4001"
	if !strings.HasPrefix(s, "/") {
		return usagef("bad --listen: %q does not begin with a slash; %s", clip(s), right)
	}
	if _, err := ma.NewMultiaddr(s); err != nil {
		return usagef("bad --listen: %q is no multiaddr (%s); %s", clip(s), oneLine(err), right)
	}
	return nil
}

const (
	goodbyeTime = time.Second      // for peers to disconnect when the daemon stops
	stopWithin  = 10 * time.Second // for all of it
)

// stop ends the daemon in an order in which nobody is surprised, and within stopWithin whatever hangs: everything it keeps
// survives being killed.
func (d *daemon) stop(tending func()) error {
	late := time.AfterFunc(stopWithin-200*time.Millisecond, func() {
		fmt.Fprintln(d.house.env.stderr, "dray: something did not end in time; nothing is lost, and the next start looks whether all is whole")
		os.Exit(exitFailed)
	})
	defer late.Stop()
	d.house.leaving.Store(true) // whoever asks whether this is ready is told first
	d.house.notify("STOPPING=1\nSTATUS=stopping")
	tending()
	return d.close()
}

func (d *daemon) close() error {
	d.unwatch()
	controlled := watch(func(<-chan struct{}) { d.control.close() }) // commands are told to stop while HTTP drains
	if d.http != nil {
		_ = d.http.close() // whoever still reads then is cut off
	}
	controlled()
	ctx, leave := context.WithTimeout(context.Background(), goodbyeTime)
	defer leave()
	d.house.node.Goodbye(ctx)
	d.keeping()
	return d.house.Close()
}

// announce prints who is here.
func (d *daemon) announce(e *env) error {
	id := d.house.identity()
	if e.json {
		line := struct {
			identity
			HTTP string `json:"http,omitempty"`
		}{identity: id}
		if d.http != nil && d.http.addr != "" {
			line.HTTP = d.http.url()
		}
		return e.emit(line)
	}
	e.printf("peer %s", id.Peer)
	for _, a := range id.Addrs {
		e.printf("%s", a)
	}
	if d.http != nil && d.http.addr != "" {
		e.tell("%s", d.http.url())
	}
	e.tell("serving %s; stop with ^C", d.house.home)
	return nil
}
