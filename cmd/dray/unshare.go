package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"dray"
	rules "dray/access"
	"dray/store/disk"
)

var cmdUnshare = &cobra.Command{
	Use:   "unshare CID|PATH|TICKET",
	Short: "take a private ticket back",
	Long: `Unshare takes back what ` + "`dray share --private`" + ` gave: a ticket that it printed, or the only ticket of a root or, with --all,
every ticket of it and members' right to it. Who uses the ticket is served nothing more at once, also in the middle of a
transfer, and is told that it is no longer accepted. What somebody has got by then, he has; and other hosts that got it with
the same ticket still accept that.

The root stays in the home, and private: ` + "`dray share --private`" + ` makes another ticket, ` + "`dray share --open`" + ` opens it.

With --json it prints {"cid":…,"revoked":N,"left":N}: tickets.`,
	Example: `  dray unshare dray1aesac…
  dray unshare --all big.bin`,
	Args: arguments(1, 1, "a CID, PATH or TICKET"),
}

func newUnshare(e *env) *cobra.Command {
	var all bool
	c := bind(e, cmdUnshare, func(ctx context.Context, e *env, args []string) error { return runUnshare(ctx, e, args[0], all) })
	c.Flags().BoolVar(&all, "all", false, "take back every ticket, and members' right")
	return c
}

type unshareRequest struct {
	CID        string `json:"cid,omitempty"`
	Path       string `json:"path,omitempty"`
	Capability string `json:"capability,omitempty"`
	All        bool   `json:"all,omitempty"`
}

type unshareResult struct {
	CID     string `json:"cid"`
	Revoked int    `json:"revoked"`
	Left    int    `json:"left"`
}

var taskUnshare = task[unshareRequest, nothing, unshareResult]{name: "unshare", run: unshare}

func runUnshare(ctx context.Context, e *env, what string, all bool) error {
	q := unshareRequest{All: all}
	if looksLikeTicket(what) {
		t, err := parseTicket(what)
		if err != nil {
			return usagef("bad ticket: %w", err)
		}
		if t.secret.IsZero() && !all {
			return usagef("the ticket is not private: there is nothing to take back; `dray rm` stops serving what it names")
		}
		q.CID, q.Capability = t.root.String(), encodeSecret(t.secret)
	} else if _, err := cid.Decode(what); err == nil {
		root, err := parseCID(what)
		if err != nil {
			return err
		}
		q.CID = root.String()
	} else if q.Path, err = filepath.Abs(what); err != nil {
		return err
	}
	r, err := taskUnshare.with(ctx, e, q, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	e.printf("%s: took back %s, %d left", r.CID, plural(int64(r.Revoked), "ticket"), r.Left)
	return nil
}

func unshare(ctx context.Context, h *house, q unshareRequest, _ pipes[nothing]) (unshareResult, error) {
	root, err := h.rootNamed(ctx, q.CID, q.Path)
	if err != nil {
		return unshareResult{}, err
	}
	secret, err := decodeSecret(q.Capability)
	if err != nil {
		return unshareResult{}, err
	}
	r := unshareResult{CID: root.String()}
	err = h.door.edit(ctx, func(b *rules.Book) error {
		rule, closed := b.Rule(root)
		n := len(rule.Capabilities)
		switch {
		case !closed || rule.Under.Defined():
			return errOpen(root)
		case q.All:
			r.Revoked = b.RevokeAll(root)
		case !secret.IsZero():
			if !b.Revoke(root, secret) {
				return &dray.Error{Op: "unshare", CID: root, Err: fmt.Errorf(
					"%w: the ticket is none that is accepted here, or no longer", dray.ErrNotFound)}
			}
			r.Revoked = 1
		case n == 1 && !rule.Members:
			b.Revoke(root, rule.Capabilities[0].Secret)
			r.Revoked = 1
		default:
			return usagef("%v is for %s: name the ticket to take back (%s), or say --all", root, accessOf(rule, true), labels(rule))
		}
		r.Left = n - r.Revoked
		return nil
	})
	return r, err
}

// labels lists what the capabilities of a root are called.
func labels(r rules.Rule) string {
	var list []string
	for _, c := range r.Capabilities {
		name := c.Label
		if name == "" {
			name = "no label"
		}
		list = append(list, fmt.Sprintf("%s, %s", name, c.Made.Format("2006-01-02 15:04")))
	}
	if len(list) == 0 {
		return "there is none"
	}
	return strings.Join(list, "; ")
}

// rootNamed returns the root that a user named by its CID, or by the path that was added or got.
func (h *house) rootNamed(ctx context.Context, c, path string) (cid.Cid, error) {
	if path == "" {
		return parseCID(c)
	}
	roots, err := h.store.Roots(ctx)
	if err != nil {
		return cid.Undef, err
	}
	i := slices.IndexFunc(roots, func(r disk.Root) bool { return r.Path == path })
	if i < 0 {
		return cid.Undef, &dray.Error{Op: "find " + path, Err: fmt.Errorf(
			"%w: no root has this path, nor is it a CID or a ticket; `dray ls` lists what there is", dray.ErrNotFound)}
	}
	return roots[i].CID, nil
}

// encodeSecret and decodeSecret are how a capability travels between a command and the daemon.
func encodeSecret(s rules.Secret) string {
	if s.IsZero() {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(s[:])
}

func decodeSecret(text string) (s rules.Secret, err error) {
	if text == "" {
		return s, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != len(s) {
		return s, usagef("the capability is not %d bytes", len(s))
	}
	return rules.Secret(b), nil
}
