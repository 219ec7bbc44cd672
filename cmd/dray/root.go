package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const rootLong = `Dray moves files and directories between machines: peer to peer, verified, resumable.

Share a file here, and get it there:

  dray share big.bin
  dray get TICKET

A home holds this host's key and its store. The bytes stay in your own files: the store only knows where they lie.
While ` + "`dray serve`" + ` runs on a home, the other commands use it.

` + exitHelp

// version names the build.
func version() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	v := strings.Trim(b.Main.Version, "()")
	for _, s := range b.Settings {
		if s.Key == "vcs.revision" && v == "devel" && len(s.Value) >= 12 {
			v += "-" + s.Value[:12]
		}
	}
	return v
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "dray",
		Short:         "move files between machines: peer to peer, verified, resumable",
		Long:          rootLong,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownCommand(c, args[0])
		},
	}
	root.SetVersionTemplate("dray {{.Version}}\n")
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.HiddenDefaultCmd = false
	f := root.PersistentFlags()
	f.StringVar(&e.homeFlag, "home", "", "directory of the key and the store (default DRAY_HOME, else ~/.dray)")
	f.BoolVar(&e.json, "json", false, "print results as JSON, one value a line")
	f.BoolVarP(&e.quiet, "quiet", "q", false, "print nothing but results and errors")
	f.BoolVarP(&e.verbose, "verbose", "v", false, "log to stderr what goes on")
	for _, add := range commands {
		root.AddCommand(add(e))
	}
	return root
}

// commands lists the subcommands in the order in which help shows them.
var commands = []func(*env) *cobra.Command{
	newShare,
	newUnshare,
	newGet,
	newJobs,
	newAdd,
	newServe,
	newLs,
	newTensors,
	newCat,
	newWarm,
	newStat,
	newSeed,
	newPin,
	newRm,
	newGC,
	newVerify,
	newFind,
	newPeers,
	newRepos,
	newTrust,
	newMembers,
	newSwarmKey,
	newBan,
	newUnban,
	newLimit,
	newStatus,
	newDoctor,
	newConfig,
	newID,
	newBlock,
	newCar,
	newDemo,
	newMan,
}

// runner is what a subcommand does, once its flags and arguments are read.
type runner func(ctx context.Context, e *env, args []string) error

// bind returns a copy of a subcommand's description that runs f.
func bind(e *env, about *cobra.Command, f runner) *cobra.Command {
	c := &cobra.Command{
		Use: about.Use, Short: about.Short, Long: about.Long + "\n\n" + exitHelp, Example: about.Example,
		ValidArgsFunction: about.ValidArgsFunction, Aliases: about.Aliases,
	}
	check := about.Args
	c.Args = func(c *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(c, args); err != nil {
			return usagef("%w; usage: %s", err, c.UseLine())
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error { return f(c.Context(), e, args) }
	return c
}

// arguments checks the number of arguments; what names them in the complaint.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("%s is missing", what)
		case len(args) > most && most == 0:
			return fmt.Errorf("%q is one argument too many: there are none", args[0])
		case len(args) > most:
			return fmt.Errorf("%q is one argument too many: it takes %s only", args[most], what)
		}
		return nil
	}
}

func unknownCommand(c *cobra.Command, name string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return usagef("there is no command %q%s", name, suggest(name, names, "`"+c.CommandPath()+" --help` lists them"))
}

// flagError adds to a complaint about flags what would be right.
func flagError(c *cobra.Command, err error) error {
	text := err.Error()
	name, isFlag := strings.CutPrefix(text, "unknown flag: ")
	if !isFlag {
		return usagef("%w; `%s --help` shows what it takes", err, c.CommandPath())
	}
	var names []string
	visit := func(f *pflag.Flag) { names = append(names, "--"+f.Name) }
	c.LocalFlags().VisitAll(visit)
	c.InheritedFlags().VisitAll(visit)
	return usagef("there is no flag %s%s", name, suggest(name, names, "`"+c.CommandPath()+" --help` lists them"))
}
