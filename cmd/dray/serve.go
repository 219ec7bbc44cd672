package main

import (
	"context"
	"errors"
	"fmt"
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
certain who sends them and what they are, but whoever can listen on the line can read them. With --json its first line is {"peer":…,"addrs":[…]}.`,
	Example: `  dray serve
  dray serve --listen /ip4/0.0.0.0/tcp/4001 --listen /ip4/0.0.0.0/udp/4001/quic-v1`,
	Args: arguments(0, 0, ""),
}

func newServe(e *env) *cobra.Command {
	var (
		listen []string
		limit  string
	)
	c := bind(e, cmdServe, func(ctx context.Context, e *env, _ []string) error { return runServe(ctx, e, listen, limit) })
	c.Flags().StringVar(&e.http, "http", "", "where HTTP is served, HOST:PORT, or off (default http.listen of the settings)")
	quotaFlag(c, &limit)
	listenFlag(c, &listen)
	planeFlag(e, c)
	limitFlags(e, c)
	admissionFlag(e, c)
	return c
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
	if d.http, err = serveHTTP(ctx, d.house, d.settings); err == nil {
		err = d.announce(e)
	}
	if err == nil {
		end := d.house.startTending(q)
		defer end()
		<-ctx.Done()
		end()
	}
	e.tell("stopping")
	return errors.Join(err, d.close())
}

// daemon is a home that is open for peers and for other commands.
type daemon struct {
	house    *house
	control  *control
	settings settings.Settings
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
	if h.backlog, err = openBacklog(h, backlogConfig{}); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	c, err := openControl(h)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return &daemon{house: h, control: c, settings: config, unwatch: h.watchMembers(), keeping: h.startKeeping()}, nil
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

// goodbyeTime is how long peers have to disconnect when the daemon stops.
const goodbyeTime = time.Second

func (d *daemon) close() error {
	d.unwatch()
	ends, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	if d.http != nil {
		_ = d.http.close(ends) // whoever still reads then is cut off
	}
	d.control.close()
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
		return e.emit(id)
	}
	e.printf("peer %s", id.Peer)
	for _, a := range id.Addrs {
		e.printf("%s", a)
	}
	if d.http != nil && d.http.addr != "" {
		e.tell("http://%s", d.http.addr)
	}
	e.tell("serving %s; stop with ^C", d.house.home)
	return nil
}
