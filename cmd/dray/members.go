package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"dray"
	rules "dray/access"
	"dray/transport/p2p"
)

var cmdMembers = &cobra.Command{
	Use:   "members",
	Short: "say who is a member: of a swarm that serves nobody else",
	Long: `Members lists, adds and removes members: peers to whom roots shared with --members go, and who alone are served at all by
` + "`dray serve --admission members`" + `. Members with addresses are dialled and kept connected.

They stand in the file members in the home, one a line: the peer id, then its addresses; what follows a # is a remark. You can
edit it yourself: a daemon reads it again when it changes, and on SIGHUP. A file with a mistake is not used at all: the daemon
names the line, and the members of before stay.`,
	Example: `  dray members add 12D3KooW… /ip4/192.0.2.7/tcp/4001
  dray members ls
  dray members rm 12D3KooW…`,
}

var cmdMembersAdd = &cobra.Command{
	Use:   "add PEER [ADDR…]",
	Short: "add a member, or addresses of one",
	Long: `Add writes a member into the members file, or adds addresses to one who stands there. PEER is an id as ` + "`dray id`" + ` prints it,
or an address that ends in /p2p/ID.

With --json it prints {"peer":…,"addrs":[…]}.`,
	Example: `  dray members add 12D3KooW…
  dray members add /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…`,
	Args: arguments(1, 1+rules.MaxMemberAddrs, "a PEER and its ADDRs"),
}

var cmdMembersRm = &cobra.Command{
	Use:   "rm PEER",
	Short: "remove a member",
	Long: `Rm takes a member's line out of the members file. A daemon that serves this home stops serving the member at once what is
for members.

With --json it prints {"peer":…}.`,
	Example: `  dray members rm 12D3KooW…`,
	Args:    arguments(1, 1, "a PEER"),
}

var cmdMembersLs = &cobra.Command{
	Use:   "ls",
	Short: "list the members",
	Long: `Ls lists who stands in the members file, in its order.

With --json each line is {"peer":…,"addrs":[…]}.`,
	Example: `  dray members ls`,
	Args:    arguments(0, 0, ""),
}

func newMembers(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: cmdMembers.Use, Short: cmdMembers.Short, Long: cmdMembers.Long + "\n\n" + exitHelp, Example: cmdMembers.Example,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownCommand(c, args[0])
		},
	}
	c.AddCommand(bind(e, cmdMembersAdd, runMembersAdd), bind(e, cmdMembersRm, runMembersRm), bind(e, cmdMembersLs, runMembersLs))
	return c
}

// listedMember is one member.
type listedMember struct {
	Peer  string   `json:"peer"`
	Addrs []string `json:"addrs,omitempty"`
}

func runMembersAdd(_ context.Context, e *env, args []string) error {
	var add rules.Member
	if strings.HasPrefix(args[0], "/") {
		p, err := p2p.ParseAddr(args[0])
		if err != nil {
			return usagef("bad address: %w", cause(err))
		}
		add.ID = p.ID
		for _, a := range p.Addrs {
			add.Addrs = append(add.Addrs, strings.TrimSuffix(a, "/p2p/"+p.ID.String()))
		}
	} else {
		id, err := dray.ParsePeerID(args[0])
		if err != nil || id.String() != args[0] {
			return usagef("%q is no peer id; right is one as `dray id` prints it, such as 12D3KooW…", clip(args[0]))
		}
		add.ID = id
	}
	add.Addrs = append(add.Addrs, args[1:]...)
	return editMembers(e, add.ID, func(text []byte) ([]byte, error) {
		text, err := rules.AddMember(text, add)
		var at *rules.LineError
		if errors.As(err, &at) && at.Line == 0 { // of the member, not of the file
			err = usagef("%s; %s", at.Wrong, at.Right)
		}
		return text, err
	})
}

func runMembersRm(_ context.Context, e *env, args []string) error {
	id, err := dray.ParsePeerID(args[0])
	if err != nil {
		return usagef("%q is no peer id; `dray members ls` lists those there are", clip(args[0]))
	}
	return editMembers(e, id, func(text []byte) ([]byte, error) {
		text, there, err := rules.RemoveMember(text, id)
		if err == nil && !there {
			err = &dray.Error{Op: "members rm", Peer: id, Err: fmt.Errorf("%w: no member", dray.ErrNotFound)}
		}
		return text, err
	})
}

// editMembers changes the members file and prints the member it was about.
func editMembers(e *env, id dray.PeerID, change func([]byte) ([]byte, error)) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	if err := makeHome(home); err != nil {
		return err
	}
	text, err := membersText(home)
	if err != nil {
		return err
	}
	text, err = change(text)
	var at *rules.LineError
	switch {
	case errors.As(err, &at):
		return fmt.Errorf("%s: %w", membersPath(home), err)
	case err != nil:
		return err
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(membersPath(home)); err == nil {
		mode = info.Mode().Perm()
	}
	if err := replaceFile(membersPath(home), text, mode); err != nil {
		return err
	}
	m, err := rules.ParseMembers(text)
	if err != nil {
		return err
	}
	one := listedMember{Peer: id.String()}
	for _, x := range m.List() {
		if x.ID == id {
			one.Addrs = x.Addrs
		}
	}
	if e.json {
		return e.emit(one)
	}
	e.tell("%s in %s", plural(int64(len(m.List())), "member"), membersPath(home))
	return nil
}

func runMembersLs(_ context.Context, e *env, _ []string) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	m, err := readMembers(home)
	if err != nil {
		return err
	}
	for _, x := range m.List() {
		if e.json {
			if err := e.emit(listedMember{x.ID.String(), x.Addrs}); err != nil {
				return err
			}
			continue
		}
		e.printf("%s", x)
	}
	return nil
}
