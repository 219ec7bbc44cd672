package main

import (
	"slices"

	"github.com/spf13/cobra"
)

var dataPlanes = []string{"encrypted", "authenticated"}

// planeFlag adds --data-plane and --swarm-key, which every command has that may start a node.
func planeFlag(e *env, c *cobra.Command) {
	c.Flags().StringVar(&e.dataPlane, "data-plane", "",
		"how blocks travel: encrypted (the default); or authenticated, which is in clear, to peers that chose it too")
	c.Flags().StringVar(&e.swarmKey, "swarm-key", "",
		"file with the key of a private swarm (default swarm.key in the home, if there is one)")
	_ = c.RegisterFlagCompletionFunc("data-plane", cobra.FixedCompletions(dataPlanes, cobra.ShellCompDirectiveNoFileComp))
}

// checkPlane says what is wrong with --data-plane.
func (e *env) checkPlane() error {
	if e.dataPlane == "" || slices.Contains(dataPlanes, e.dataPlane) {
		return nil
	}
	return usagef("there is no data plane %q%s", e.dataPlane,
		suggest(e.dataPlane, dataPlanes, "there are encrypted and authenticated"))
}

// uselessPlane is the error when --data-plane is given and the daemon has chosen already.
func (e *env) uselessPlane(home string) error {
	if e.dataPlane == "" {
		return e.uselessSwarmKey(home)
	}
	return usagef("a daemon serves %s already, so --data-plane has no use; give it to the daemon, or stop that", home)
}

// planes notes what the bytes of each source take, as far as it is still connected.
func (h *house) planes(list []source) []source {
	taken := make(map[string]string)
	for _, p := range h.node.Peers() {
		taken[p.ID.String()] = p.Info.DataPlane
	}
	for i := range list {
		list[i].DataPlane = taken[list[i].Peer]
	}
	return list
}
