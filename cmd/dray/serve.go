package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"

	"dray/transport/p2p"
)

var cmdServe = &cobra.Command{
	Use:   "serve",
	Short: "serve what the home holds, until stopped",
	Long: `Serve lets peers get what the home holds, and lets other dray commands use this home meanwhile. It prints its peer id
and addresses and runs until SIGTERM or ^C; then it says goodbye to its peers, so that they turn to others at once, and exits
with 0.

It listens on TCP, QUIC, WebSocket and WebTransport on all interfaces, on ports that the system chooses, unless told
otherwise with --listen. Blocks travel encrypted, unless --data-plane authenticated is given here and there: then it is
certain who sends them and what they are, but whoever can listen on the line can read them. With --json its first line is {"peer":…,"addrs":[…]}.`,
	Example: `  dray serve
  dray serve --listen /ip4/0.0.0.0/tcp/4001 --listen /ip4/0.0.0.0/udp/4001/quic-v1`,
	Args: arguments(0, 0, ""),
}

func newServe(e *env) *cobra.Command {
	var listen []string
	c := bind(e, cmdServe, func(ctx context.Context, e *env, _ []string) error { return runServe(ctx, e, listen) })
	listenFlag(c, &listen)
	planeFlag(e, c)
	limitFlags(e, c)
	return c
}

func listenFlag(c *cobra.Command, listen *[]string) {
	c.Flags().StringArrayVar(listen, "listen", nil,
		"multiaddr to accept connections on, such as /ip4/0.0.0.0/tcp/4001 (repeatable)")
}

func runServe(ctx context.Context, e *env, listen []string) error {
	d, err := startDaemon(ctx, e, listen)
	if err != nil {
		return err
	}
	err = d.announce(e)
	if err == nil {
		<-ctx.Done()
	}
	e.tell("stopping")
	return errors.Join(err, d.close())
}

// daemon is a home that is open for peers and for other commands.
type daemon struct {
	house   *house
	control *control
}

func startDaemon(ctx context.Context, e *env, listen []string) (*daemon, error) {
	home, err := e.home()
	if err != nil {
		return nil, err
	}
	if err := e.checkPlane(); err != nil {
		return nil, err
	}
	if listen == nil {
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
	h, err := openHouse(e, home, access{network: true, listen: listen})
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
	return &daemon{house: h, control: c}, nil
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
	d.control.close()
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTime)
	defer cancel()
	d.house.node.Goodbye(ctx)
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
	e.tell("serving %s; stop with ^C", d.house.home)
	return nil
}
