// Package arch holds the shape of the project as a test: who may import whom, what the pure packages must not touch, and
// the few habits that a linter does not know. [Check] reads the source and returns a [Refusal] for each place that breaks a
// rule, with the reason and what to do instead. The rules that are data stand at the top of table.go.
//
// # Terms
//
// A room is a package with a theory of its own, and a row in the table. A pure room decides and never waits: it has no
// goroutine, clock, lock, disk or socket, so that the simulator and the daemon run the same code.
//
// # What it does not do
//
// It does not look for bugs (vet and staticcheck do) or at formatting (gofumpt does), and it does not follow types: it
// reads the syntax of each file, so a determined author can get around it. It is there for the others.
package arch

// room is one row of the table in section 4 of the design.
type room struct {
	// path is the package's directory, "." for the root.
	path string
	// imports lists the rooms that it may import, as paths; "*" means all but rooms that hold tests.
	imports []string
	// pure forbids everything that waits or depends on the machine.
	pure bool
	// tests says that the package exists for tests: it may import any library and only tests may import it.
	tests bool
}

// The table. A new room comes with its row here and a dated RFC in docs/rfc.
var rooms = []room{
	{path: ".", pure: true},
	{path: "wire", imports: []string{"."}, pure: true},
	{path: "unixfs", imports: []string{"."}, pure: true},
	{path: "tensor", imports: []string{"."}, pure: true},
	{path: "reduce", imports: []string{"."}, pure: true},
	{path: "exchange", imports: []string{".", "wire", "exchange/health"}, pure: true},
	{path: "access", imports: []string{"."}, pure: true},
	{path: "jobs", imports: []string{"."}, pure: true},
	{path: "exchange/health", imports: []string{"."}, pure: true},

	{path: "digest", imports: []string{"."}},
	{path: "store", imports: []string{"."}},
	{path: "store/disk", imports: []string{"."}},
	{path: "store/storetest", imports: []string{"."}, tests: true},
	{path: "jobs/journal", imports: []string{"jobs"}},
	{path: "transport", imports: []string{".", "wire"}},
	{path: "transport/p2p", imports: []string{".", "wire", "transport"}},
	{path: "transport/transporttest", imports: []string{".", "wire", "transport"}, tests: true},

	{path: "node", imports: []string{".", "wire", "exchange", "exchange/health", "access", "transport", "unixfs", "tensor", "reduce", "digest"}},
	{path: "sim", imports: []string{".", "wire", "exchange", "exchange/health", "unixfs", "tensor", "reduce"}},
	{path: "settings", imports: []string{"."}},
	{path: "find", imports: []string{"."}, pure: true},
	{path: "find/seek", imports: []string{".", "find", "transport", "origin"}},
	{path: "find/http", imports: []string{".", "find", "transport", "origin"}},
	{path: "names", imports: []string{"."}, pure: true},
	{path: "gateway", imports: []string{".", "unixfs", "tensor"}},
	{path: "origin", imports: []string{"."}},
	{path: "edge", imports: []string{".", "unixfs", "origin"}},
	{path: "hub", imports: []string{".", "unixfs", "tensor", "names"}},
	{path: "hub/mirror", imports: []string{".", "unixfs", "tensor", "names", "hub", "transport", "origin"}},
	{path: "hub/mirror/mirrortest", tests: true},
	{path: "dash", imports: []string{".", "node"}},
	{path: "meter", imports: []string{".", "node", "wire", "exchange/health"}},
	{path: "cmd/dray", imports: []string{"*"}},

	{path: "interop", imports: []string{"*"}, tests: true},
	{path: "internal/arch", tests: true},
	{path: "internal/scripttest", tests: true},
}

// library is a third-party module, or a part of one, and the rooms whose product code may import it.
type library struct {
	// prefix is the import path of the library; packages below it are meant too. The longest prefix counts.
	prefix string
	// rooms lists who may import it; "*" means every room, and none means tests only.
	rooms []string
	// why is the reason, as a refusal prints it.
	why string
}

// The libraries. One that is not listed is refused: a dependency is a decision, and its line here says who needs it.
var libraries = []library{
	{"github.com/ipfs/go-cid", []string{"*"}, "CIDs are nouns of every room"},
	{"github.com/multiformats/go-multihash", []string{"*"}, "multihashes are part of CIDs"},
	{"github.com/multiformats/go-varint", []string{"*"}, "varints are part of every format"},

	{"google.golang.org/protobuf/encoding/protowire", []string{"wire", "unixfs"}, "formats are read by hand, in the rooms that own them"},
	{"google.golang.org/protobuf", nil, "generated messages copy the payload; protowire reads it in place"},
	{"github.com/ipld/go-car/v2", []string{"unixfs"}, "CAR files are unixfs's"},
	{"github.com/ipld/go-ipld-prime", []string{"unixfs", "gateway"}, "graphs are read where files are made from them"},
	{"github.com/ipld/go-codec-dagpb", []string{"unixfs", "gateway"}, "graphs are read where files are made from them"},
	{"github.com/spaolacci/murmur3", []string{"unixfs"}, "sharded directories hash names with it"},

	{"github.com/klauspost/cpuid/v2", []string{"digest"}, "what the CPU can do matters to hashing only"},
	{"github.com/minio/sha256-simd", []string{"digest"}, "hashing in bulk is digest's"},
	{"lukechampine.com/blake3", []string{"digest"}, "hashing in bulk is digest's; one block at a time goes through dray.Sum"},

	{"github.com/cockroachdb/pebble/v2", []string{"store/disk"}, "the index is an inner matter of the disk store"},
	{"github.com/quic-go", []string{"transport/p2p"}, "QUIC counts its own bytes, and only the transport sees its connections"},
	{"github.com/gorilla/websocket", []string{"transport/p2p"}, "libp2p's WebSocket is made of it, and counts no bytes"},
	{"github.com/libp2p", []string{"transport/p2p"}, "libp2p is one transport among others, and its types stay behind the interfaces of package transport"},
	{"github.com/multiformats/go-multiaddr", []string{"transport/p2p", "access", "node", "find/http", "cmd/dray"}, "addresses are strings to everyone who does not dial or check them"},

	{"github.com/ipfs/boxo/bitswap", nil, "Bitswap is what this project implements; boxo's is there to be tested against"},
	{"github.com/ipfs/boxo/gateway", []string{"gateway"}, "the gateway that Kubo itself uses"},
	{"github.com/ipfs/boxo", []string{"gateway", "find/http"}, "the doors for IPFS clients are boxo's; the exchange is not"},
	{"github.com/ipfs/go-datastore", []string{"transport/p2p"}, "the DHT keeps its records in one"},
	{"github.com/ipfs/go-log/v2", []string{"transport/p2p"}, "the DHT logs to standard error, which is dray's"},
	{"github.com/ipfs/go-block-format", []string{"gateway"}, "boxo's gateway speaks of blocks in its terms"},
	{"github.com/ipfs/go-ipld-format", []string{"gateway"}, "boxo's gateway speaks of links in its terms"},
	{"github.com/ipfs", nil, "these are the reference implementation: tests compare with it, the product does not need it"},

	{"github.com/spf13/cobra", []string{"cmd/dray"}, "only the command line has flags"},
	{"github.com/spf13/pflag", []string{"cmd/dray"}, "only the command line has flags"},
	{"github.com/vbauerster/mpb/v8", []string{"cmd/dray"}, "only the command line has progress bars"},
	{"golang.org/x/crypto/salsa20", []string{"transport/p2p"}, "what a private swarm's connections begin with is encrypted with it"},
	{"golang.org/x/term", []string{"cmd/dray"}, "only the command line has a terminal"},
	{"golang.org/x/sys", []string{"store/disk", "transport/p2p", "node", "cmd/dray"}, "system calls belong to the rooms that touch the machine"},
	{"golang.org/x/sync", []string{"store/disk", "transport/p2p", "node", "cmd/dray"}, "only rooms that may have goroutines need it"},
	{"github.com/BurntSushi/toml", []string{"settings"}, "only settings reads the configuration"},
	{"github.com/coreos/go-systemd/v22", []string{"cmd/dray"}, "only the daemon talks to the service manager"},
	{"github.com/prometheus", []string{"meter"}, "metrics are made in one place, so that their labels stay few"},
	{"github.com/prometheus/client_golang/prometheus", []string{"meter", "gateway"}, "metrics are meter's; boxo's gateway wants a registry to hide its own in"},
	{"go.opentelemetry.io", []string{"meter"}, "spans are made in one place"},
	{"github.com/minio/minio-go/v7", []string{"edge"}, "only the edge reads from buckets"},
	{"github.com/maypok86/otter/v2", []string{"edge", "find"}, "caches that decide what to keep"},
	{"github.com/failsafe-go/failsafe-go", []string{"edge", "hub/mirror", "find/http"}, "for origins that fail"},
	{"golang.org/x/time", []string{"edge", "hub/mirror", "cmd/dray"}, "limits of rates at the doors"},
	{"github.com/chromedp", nil, "it drives a browser in tests"},
	{"github.com/rogpeppe/go-internal", nil, "it runs test scripts"},
}

// impureImports are the packages that a pure room must not import, with those below them.
var impureImports = map[string]string{
	"sync":      "state in a pure room has one owner, who needs no lock: pass values in and out",
	"os":        "a pure room does not know the machine: take bytes, an io.Reader or an fs.FS",
	"net":       "a pure room does not know the network: return what is to be sent",
	"os/signal": "a pure room does not know the machine",
	"syscall":   "a pure room does not know the machine",
	"log":       "a pure room has no output but its results: return what is worth saying",
}

// impureCalls are the names that a pure room must not use, by package.
var impureCalls = map[string]map[string]bool{
	"time": set("Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"),
}

// pureRand are the names of math/rand and math/rand/v2 that make no use of the global source.
var pureRand = set("Rand", "Source", "Source64", "New", "NewSource", "PCG", "NewPCG", "ChaCha8", "NewChaCha8", "Zipf", "NewZipf")

// emptyWords are the parts of a name that say nothing about what it names.
var emptyWords = set("util", "utils", "common", "commons", "helper", "helpers", "misc", "base", "impl", "impls", "manager", "managers")

// maxLines is how long a file may be.
const maxLines = 1000

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}
