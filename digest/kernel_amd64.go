//go:build amd64 && gc && !noasm && !appengine

package digest

import (
	_ "unsafe" // for linkname

	"github.com/klauspost/cpuid/v2"
	_ "github.com/minio/sha256-simd" // holds the kernel
)

// kernelWorks says that this CPU, and the system on it, can run the sixteen-lane kernel.
var kernelWorks = cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512BW, cpuid.AVX512VL)

// shaInstructions says that the standard library's sha2-256 has SHA instructions to use.
var shaInstructions = cpuid.CPU.Supports(cpuid.SHA)

// sha256X16Avx512 is the assembly inside minio/sha256-simd. That package reaches it only through a server whose goroutine
// never ends and polls a microsecond timer, so it is called directly here, and all that is around it (padding, the choice
// of lanes, the digest) is ours. The version is pinned in go.mod, and the tests compare it with the standard library.
//
// For each of len(mask) steps it takes the next 64 bytes of every input whose bit in that step's mask is set, and
// advances that lane's state. All inputs advance together, so a lane must be given len(mask)*64 bytes unless it is off for
// all steps. digests is eight rows of sixteen little-endian words: word w of lane l is at 4*(16*w+l).
//
//go:linkname sha256X16Avx512 github.com/minio/sha256-simd.sha256X16Avx512
//go:noescape
func sha256X16Avx512(digests, scratch *[512]byte, table *[512]uint64, mask []uint64, inputs [16][]byte)

func runKernel(digests, scratch *[512]byte, mask []uint64, inputs *[laneCount][]byte) {
	sha256X16Avx512(digests, scratch, &roundTable, mask, *inputs)
}
