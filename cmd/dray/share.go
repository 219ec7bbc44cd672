package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/spf13/cobra"

	"dray"
	rules "dray/access"
	"dray/transport"
)

var cmdShare = &cobra.Command{
	Use:   "share PATH",
	Short: "add a file or directory, serve it and print a ticket",
	Long: `Share adds a path, as ` + "`dray add`" + ` does, and prints a ticket: one line that says what it is and where to get it, and the
command to type elsewhere. It serves until ^C. If a daemon runs on this home, the daemon serves and share ends at once.

Whoever can connect to this host can get what its home holds, unless it is private. With --private only those who have the
ticket get it: it holds a secret, so show it to nobody else. Each call makes another ticket, with a --label of its own if you
like, and ` + "`dray unshare`" + ` takes one back. With --members it goes to members only (` + "`dray members`" + `), and the ticket holds no secret.
--open opens what was private. docs/access.md says what that protects from.

With --repo org/name it is also published under a name, as a commit that this home signs: who trusts its key can download it with
clients of the Hugging Face Hub from his own daemon (docs/hub.md). Sharing it again when files have changed makes another commit.

With --json it prints {"ticket":…,"cid":…,"bytes":…,"peer":…,"addrs":[…]}, and warnings as add does;
with --repo also "published":{"repo":…,"revision":…,"commit":…,"cid":…,"files":…,"key":…,"hashed_bytes":…,"unchanged":…}.`,
	Example: `  dray share big.bin
  dray share --private --label 'for Ada' model/
  dray share ./model --repo org/name
  dray share --listen /ip4/0.0.0.0/tcp/4001 model/`,
	Args: arguments(1, 1, "a PATH"),
}

func newShare(e *env) *cobra.Command {
	var (
		q      addRequest
		listen []string
		repo   repoOptions
	)
	c := bind(e, cmdShare, func(ctx context.Context, e *env, args []string) error {
		q.Path = args[0]
		return runShare(ctx, e, q, repo, listen)
	})
	repo.flags(c.Flags())
	addFlags(c, &q)
	listenFlag(c, &listen)
	planeFlag(e, c)
	limitFlags(e, c)
	admissionFlag(e, c)
	peerFlag(e, c)
	f := c.Flags()
	for _, s := range []struct{ name, help string }{
		{sharePrivate, "only those who have the ticket get it"},
		{shareMembers, "only members get it"},
		{shareOpen, "everybody gets it, also if it was private"},
	} {
		f.BoolFunc(s.name, s.help, func(string) error {
			if q.Share != "" && q.Share != s.name {
				return fmt.Errorf("--%s and --%s exclude each other", q.Share, s.name)
			}
			q.Share = s.name
			return nil
		})
	}
	f.StringVar(&q.Label, "label", "", "with --private, what to call the ticket in lists")
	return c
}

// Who may have what is shared, as flags and requests name it.
const (
	sharePrivate = "private"
	shareMembers = "members"
	shareOpen    = "open"
)

// pending returns a CID that nobody has, under which what is added is nobody's until its root is known, or none.
func (q *addRequest) pending() (cid.Cid, error) {
	if q.Share != sharePrivate && q.Share != shareMembers {
		return cid.Undef, nil
	}
	var name [32]byte
	rand.Read(name[:])
	b, err := dray.Hashed(cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: 32}, name[:])
	return b.CID(), err
}

// admit ends what is pending and makes the rule of a root what the request says, and notes what holds then.
func (h *house) admit(ctx context.Context, root, pending cid.Cid, q addRequest, result *addResult) error {
	err := h.door.edit(ctx, func(b *rules.Book) error {
		if pending.Defined() {
			b.End(pending)
		}
		switch q.Share {
		case sharePrivate:
			var secret rules.Secret
			rand.Read(secret[:])
			result.Capability = encodeSecret(secret)
			return b.Give(root, rules.Capability{Secret: secret, Label: q.Label, Made: time.Now()})
		case shareMembers:
			b.AllowMembers(root)
		case shareOpen:
			b.Open(root)
		}
		return nil
	})
	h.changes.Add(1)
	if rule, closed := h.door.rule(root); closed {
		result.Access = accessOf(rule, closed)
	}
	return err
}

type shareResult struct {
	Ticket string   `json:"ticket"`
	CID    string   `json:"cid"`
	Bytes  int64    `json:"bytes"`
	Peer   string   `json:"peer"`
	Addrs  []string `json:"addrs"`
	// Warnings are those of add.
	Warnings []addWarning `json:"warnings,omitempty"`
	// Published is the commit that was made of it, if it was published.
	Published *publishResult `json:"published,omitempty"`
}

func runShare(ctx context.Context, e *env, q addRequest, repo repoOptions, listen []string) error {
	if err := q.check(); err != nil {
		return err
	}
	name, err := repo.request()
	if err != nil {
		return err
	}
	q.Follow = name != nil // repositories have no links, and what clients of the Hub keep consists of them
	if q.Label != "" && q.Share != sharePrivate {
		return usagef("--label names a private ticket; say --private, too")
	}
	if len(q.Label) > rules.MaxLabel {
		return usagef("the label has %d bytes, more than %d", len(q.Label), rules.MaxLabel)
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
		if err := errors.Join(e.uselessPlane(home), e.uselessLimits(home), e.uselessAdmission(home)); err != nil {
			return err
		}
		return share(ctx, e, r, q, name)
	}
	d, err := startDaemon(ctx, e, listen)
	if err != nil {
		return err
	}
	err = share(ctx, e, d.house, q, name)
	if err == nil {
		e.tell("serving until ^C")
		<-ctx.Done()
	}
	return errors.Join(err, d.close())
}

// share adds a path where the home is open, publishes it if it is given a name, and prints its ticket.
func share(ctx context.Context, e *env, b backend, q addRequest, name *publishRequest) error {
	added, err := addShown(e, q, func(p pipes[addNote]) (addResult, error) { return taskAdd.do(ctx, b, q, p) })
	if err != nil {
		return err
	}
	if q.Share == "" && added.Access != "" {
		return usagef("%s is not open here (%s); say --private for another ticket, --members, or --open to open it",
			q.Path, added.Access)
	}
	published, err := publishShown(ctx, e, b, q, added, name)
	if err != nil {
		return err
	}
	if h, ok := b.(*house); ok {
		h.awaitRelay(ctx) // so that the ticket has its address
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
			Warnings: added.Warnings, Published: published,
		})
	}
	e.tell("on the other machine, type:\n")
	e.printf("dray get %s", t)
	switch q.Share {
	case sharePrivate:
		e.tell("\nwhoever has this line can get it, and nobody else; `dray unshare` takes it back")
	case shareMembers:
		e.tell("\nonly members can get it; `dray members` says who they are")
	default:
		e.tell("")
	}
	return nil
}

// publishShown publishes what was added, if it is given a name, and says so.
func publishShown(ctx context.Context, e *env, b backend, q addRequest, added addResult, name *publishRequest) (*publishResult, error) {
	if name == nil {
		return nil, nil
	}
	name.Root, name.Path, name.Copied = added.CID, q.Path, q.Copy
	bar := newBar(e, "naming "+name.repo().String())
	defer bar.close()
	r, err := taskPublish.do(ctx, b, *name, pipes[addNote]{note: func(n addNote) {
		if !e.json {
			bar.set(meter{done: n.Done, total: n.Total, known: true})
		}
	}})
	bar.close()
	if err != nil {
		return nil, err
	}
	done := "published"
	if r.Unchanged {
		done = "published before, and not changed"
	}
	e.tell("%s at %s is commit %s: %s, %s", r.Repo, r.Revision, r.Commit, plural(int64(r.Files), "file"), done)
	e.tell("who is to download it by name trusts this home once: dray trust add %s --name '%s'", r.Key, r.Repo)
	return &r, nil
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
	secret, err := decodeSecret(added.Capability)
	if err != nil {
		return ticket{}, err
	}
	return ticket{
		root: root, name: name, size: added.Bytes,
		peers: []transport.Peer{{ID: peer, Addrs: ticketAddrs(id.Addrs)}}, secret: secret,
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
