package main

import (
	"slices"

	"github.com/spf13/cobra"

	"dray/store/disk"
)

// What roots are kept for. See docs/keeping.md.

func modeFlag(c *cobra.Command, mode *string, value string) {
	c.Flags().StringVar(mode, "mode", value, "what it is kept for: once, keep, seed or both (default: as before, else once)")
	_ = c.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions(modeNames(), cobra.ShellCompDirectiveNoFileComp))
}

func modeNames() []string {
	var names []string
	for _, m := range disk.Modes() {
		names = append(names, string(m))
	}
	return names
}

// parseMode reads --mode; empty stays empty.
func parseMode(s string) (disk.Mode, error) {
	if s != "" && !slices.Contains(modeNames(), s) {
		return "", usagef("there is no mode %q%s", s, suggest(s, modeNames(), "there are once, keep, seed and both"))
	}
	return disk.Mode(s), nil
}

// mostSources is how many addresses are remembered for a root.
const mostSources = 64

// inherit gives a root what an earlier record of it says and the new one does not.
func inherit(r *disk.Root, old *disk.Root) {
	for _, f := range old.Files {
		if !slices.Contains(r.Files, f) {
			r.Files = append(r.Files, f)
		}
	}
	for _, a := range old.Sources {
		if !slices.Contains(r.Sources, a) && len(r.Sources) < mostSources {
			r.Sources = append(r.Sources, a)
		}
	}
	if r.Path == "" {
		r.Path = old.Path
	}
	if r.Profile == "" {
		r.Profile = old.Profile
	}
	r.Pinned = r.Pinned || old.Pinned
	switch {
	case r.Mode == "":
		r.Mode = old.Kept() // what was added is served, also after it was got again
	case r.Mode == disk.Keep && old.Kept() == disk.Seed, r.Mode == disk.Seed && old.Kept() == disk.Keep:
		r.Mode = disk.Both
	}
}
