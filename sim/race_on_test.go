//go:build race

package sim

// thousand is the number of hosts of the largest World, which is smaller under the race detector.
const thousand = 100
