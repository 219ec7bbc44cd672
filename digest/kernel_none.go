//go:build !amd64 || !gc || noasm || appengine

package digest

// There is no sixteen-lane kernel for this machine, so nothing asks for one.
const kernelWorks = false

const shaInstructions = false

func runKernel(_, _ *[512]byte, _ []uint64, _ *[laneCount][]byte) {
	panic("digest: no kernel on this machine")
}
