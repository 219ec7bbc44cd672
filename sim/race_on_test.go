//go:build race

package sim

// The largest Worlds are smaller under the race detector.
const (
	usualSeeds  = 400 // of the random scenario
	thousand    = 100 // hosts
	rootGetters = 8   // of the largest root swarm
)
