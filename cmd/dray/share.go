package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dray"
	"dray/transport"
)

var cmdShare = &cobra.Command{
	Use:   "share PATH",
	Short: "add a file or directory, serve it and print a ticket",
	Long: `Share adds a path, as ` + "`dray add`" + ` does, and prints a ticket: one line that says what it is and where to get it, and the
command to type elsewhere. It serves until ^C. If a daemon runs on this home, the daemon serves and share ends at once.

Whoever has the ticket can get the content, and whoever can connect to this host can get what its home holds.

With --json it prints {"ticket":…,"cid":…,"bytes":…,"peer":…,"addrs":[…]}, and warnings as add does.`,
	Example: `  dray share big.bin
  dray share --listen /ip4/0.0.0.0/tcp/4001 model/`,
	Args: arguments(1, 1, "a PATH"),
}

func newShare(e *env) *cobra.Command {
	var (
		q      addRequest
		listen []string
	)
	c := bind(e, cmdShare, func(ctx context.Context, e *env, args []string) error {
		q.Path = args[0]
		return runShare(ctx, e, q, listen)
	})
	addFlags(c, &q)
	listenFlag(c, &listen)
	planeFlag(e, c)
	limitFlags(e, c)
	return c
}

type shareResult struct {
	Ticket string   `json:"ticket"`
	CID    string   `json:"cid"`
	Bytes  int64    `json:"bytes"`
	Peer   string   `json:"peer"`
	Addrs  []string `json:"addrs"`
	// Warnings are those of add.
	Warnings []addWarning `json:"warnings,omitempty"`
}

func runShare(ctx context.Context, e *env, q addRequest, listen []string) error {
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
	if r != nil {
		defer r.Close()
		if len(listen) > 0 {
			return usagef("a daemon serves %s already, so --listen has no use; leave it out, or stop the daemon", home)
		}
		if err := errors.Join(e.uselessPlane(home), e.uselessLimits(home)); err != nil {
			return err
		}
		return share(ctx, e, r, q)
	}
	d, err := startDaemon(ctx, e, listen)
	if err != nil {
		return err
	}
	err = share(ctx, e, d.house, q)
	if err == nil {
		e.tell("serving until ^C")
		<-ctx.Done()
	}
	return errors.Join(err, d.close())
}

// share adds a path where the home is open and prints its ticket.
func share(ctx context.Context, e *env, b backend, q addRequest) error {
	added, err := addShown(ctx, e, q, func(p pipes[addNote]) (addResult, error) { return taskAdd.do(ctx, b, q, p) })
	if err != nil {
		return err
	}
	id, err := taskID.do(ctx, b, nothing{}, pipes[nothing]{})
	if err != nil {
		return err
	}
	t, err := makeTicket(added, id, filepath.Base(q.Path))
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(shareResult{
			Ticket: t.String(), CID: added.CID, Bytes: added.Bytes, Peer: id.Peer, Addrs: t.peers[0].Addrs,
			Warnings: added.Warnings,
		})
	}
	e.tell("on the other machine, type:\n")
	e.printf("dray get %s", t)
	e.tell("")
	return nil
}

func makeTicket(added addResult, id identity, name string) (ticket, error) {
	root, err := parseCID(added.CID)
	if err != nil {
		return ticket{}, err
	}
	peer, err := dray.ParsePeerID(id.Peer)
	if err != nil {
		return ticket{}, err
	}
	return ticket{
		root: root, name: name, size: added.Bytes,
		peers: []transport.Peer{{ID: peer, Addrs: ticketAddrs(id.Addrs)}},
	}, nil
}

// ticketAddrs chooses the addresses to put into a ticket: TCP and QUIC, which every peer speaks, and loopback only if
// there is nothing else.
func ticketAddrs(all []string) []string {
	loopback := func(a string) bool { return strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/") }
	other := func(a string) bool {
		return strings.Contains(a, "/ws/") || strings.Contains(a, "/wss/") || strings.Contains(a, "/webtransport/")
	}
	for _, leave := range []func(string) bool{
		func(a string) bool { return loopback(a) || other(a) },
		loopback, other,
	} {
		if some := slices.DeleteFunc(slices.Clone(all), leave); len(some) > 0 {
			return some
		}
	}
	return all
}
