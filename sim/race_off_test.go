//go:build !race

package sim

// The size of the largest Worlds.
const (
	usualSeeds  = 1000 // of the random scenario
	thousand    = 1000 // hosts
	rootGetters = 32   // of the largest root swarm
)
