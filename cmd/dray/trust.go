package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"dray"
	"dray/names"
)

var cmdTrust = &cobra.Command{
	Use:   "trust",
	Short: "say whose word counts about repositories",
	Long: `Trust lists, adds and removes the keys that are believed when they say what a repository holds (docs/hub.md). The home's own
key is always believed, and before all others. What anybody else publishes does not exist for the Hub until his key is trusted.

The keys stand in the file trust in the home, one a line: the key, which is a peer id, then a pattern of repositories if it is
not trusted with all. What follows a # is a remark. Keys that stand first count more. A daemon reads the file again when it changes.`,
	Example: `  dray trust add 12D3KooW… --name 'org/*'
  dray trust ls
  dray trust rm 12D3KooW…`,
}

var cmdTrustAdd = &cobra.Command{
	Use:   "add KEY",
	Short: "trust a key",
	Long: `Add writes a key into the trust file. KEY is the peer id of whoever publishes, as ` + "`dray id`" + ` prints it there. --name says with
which repositories it is trusted: org/name, org/*, datasets/org/*; a star stands for all but a slash.

With --json it prints {"key":…,"name":…}.`,
	Example: `  dray trust add 12D3KooW…
  dray trust add 12D3KooW… --name 'org/*'`,
	Args: arguments(1, 1, "a KEY"),
}

var cmdTrustRm = &cobra.Command{
	Use:   "rm KEY",
	Short: "trust a key no more",
	Long: `Rm takes a key's lines out of the trust file; with --name only those with just that pattern.

With --json it prints {"key":…,"name":…}.`,
	Example: `  dray trust rm 12D3KooW…`,
	Args:    arguments(1, 1, "a KEY"),
}

var cmdTrustLs = &cobra.Command{
	Use:   "ls",
	Short: "list the keys that are trusted",
	Long: `Ls lists who stands in the trust file, in its order.

With --json each line is {"key":…,"name":…}, where name is empty for a key that is trusted with all.`,
	Example: `  dray trust ls`,
	Args:    arguments(0, 0, ""),
}

func newTrust(e *env) *cobra.Command {
	c := &cobra.Command{
		Use: cmdTrust.Use, Short: cmdTrust.Short, Long: cmdTrust.Long + "\n\n" + exitHelp, Example: cmdTrust.Example,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownCommand(c, args[0])
		},
	}
	var add, rm string
	a := bind(e, cmdTrustAdd, func(_ context.Context, e *env, args []string) error { return runTrustAdd(e, args[0], add) })
	a.Flags().StringVar(&add, "name", "", "pattern of the repositories that it is trusted with (default all)")
	r := bind(e, cmdTrustRm, func(_ context.Context, e *env, args []string) error { return runTrustRm(e, args[0], rm) })
	r.Flags().StringVar(&rm, "name", "", "only the line with this pattern")
	c.AddCommand(a, r, bind(e, cmdTrustLs, runTrustLs))
	return c
}

// listedRule is one line of the trust file.
type listedRule struct {
	Key  string `json:"key"`
	Name string `json:"name"`
}

func runTrustAdd(e *env, key, pattern string) error {
	rule, err := names.ParseRule(key + " " + pattern)
	if err != nil {
		return usageError{err}
	}
	err = editTrust(e, func(text []byte) ([]byte, error) { return names.AddRule(text, rule) })
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(listedRule{rule.Key.String(), rule.Repos})
	}
	with := rule.Repos
	if with == "" {
		with = "all repositories"
	}
	e.tell("%v is trusted with %s", rule.Key, with)
	return nil
}

func runTrustRm(e *env, key, pattern string) error {
	id, err := dray.ParsePeerID(key)
	if err != nil {
		return usagef("%q is no key; `dray trust ls` lists those there are", clip(key))
	}
	err = editTrust(e, func(text []byte) ([]byte, error) {
		text, n, err := names.RemoveKey(text, id, pattern)
		if err == nil && n == 0 {
			err = &dray.Error{Op: "trust rm", Peer: id, Err: fmt.Errorf("%w: it is not trusted", dray.ErrNotFound)}
		}
		return text, err
	})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(listedRule{id.String(), pattern})
	}
	e.tell("%v is trusted no more", id)
	return nil
}

// editTrust changes the trust file.
func editTrust(e *env, change func([]byte) ([]byte, error)) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	if err := makeHome(home); err != nil {
		return err
	}
	if _, err := readTrust(home); err != nil {
		return err
	}
	text, err := trustText(home)
	if err != nil {
		return err
	}
	if text, err = change(text); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(trustPath(home)); err == nil {
		mode = info.Mode().Perm()
	}
	return replaceFile(trustPath(home), text, mode)
}

func runTrustLs(_ context.Context, e *env, _ []string) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	t, err := readTrust(home)
	if err != nil {
		return err
	}
	for _, r := range t.Rules {
		if e.json {
			if err := e.emit(listedRule{r.Key.String(), r.Repos}); err != nil {
				return err
			}
			continue
		}
		e.printf("%s", r)
	}
	return nil
}
