//go:build !race

package sim

// thousand is the number of hosts of the largest World.
const thousand = 1000
