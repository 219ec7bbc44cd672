package settings

import (
	"errors"
	"fmt"
	"time"
)

// Node says what this host spends on exchanging blocks.
type Node struct {
	Memory           Size `toml:"memory" doc:"what the process tries to stay below by collecting garbage more often; GOMEMLIMIT has it over this"`
	Workers          int  `toml:"workers" doc:"how many reads and writes of the store are under way at a time"`
	HashWorkers      int  `toml:"hash_workers" doc:"how many cores hash; 0 is all of them"`
	Streams          int  `toml:"streams" doc:"streams on which blocks are sent to one peer"`
	Frames           Size `toml:"frames" doc:"most bytes of messages that are being received, hashed and written, at least 8MiB"`
	Receive          Size `toml:"receive" doc:"most bytes of blocks that have arrived and are not written; beyond it nothing new is asked for"`
	Serve            Size `toml:"serve" doc:"most bytes of blocks that are being read and sent, for all peers together"`
	ServePeer        Size `toml:"serve_peer" doc:"the same for one peer"`
	Inline           Size `toml:"inline" doc:"a block up to this size is sent at once to who asks whether it is here; 0B is never"`
	Peers            int  `toml:"peers" doc:"most connections with peers before a newcomer takes the place of a stranger"`
	PeersPerAddress  int  `toml:"peers_per_address" doc:"most connections with peers from one address, but loopback"`
	StreamMemory     Size `toml:"stream_memory" doc:"most bytes in the windows of all peers' streams"`
	StreamMemoryPeer Size `toml:"stream_memory_peer" doc:"the same for one peer"`
}

func defaultNode() Node {
	return Node{
		Memory: 112 << 20, Workers: 4, Streams: 2, Frames: 32 << 20,
		Receive: 12 << 20, Serve: 16 << 20, ServePeer: 4 << 20, Inline: 1 << 10,
		Peers: 1024, PeersPerAddress: 256, StreamMemory: 1 << 30, StreamMemoryPeer: 256 << 20,
	}
}

func (n *Node) check() error {
	errs := []error{
		between("node.workers", n.Workers, 1, 256),
		between("node.hash_workers", n.HashWorkers, 0, 1024),
		between("node.streams", n.Streams, 1, 16),
		between("node.peers", n.Peers, 8, 100_000),
		between("node.peers_per_address", n.PeersPerAddress, 1, 100_000),
		between("node.memory", n.Memory, 32<<20, 1<<40),
		between("node.frames", n.Frames, 8<<20, 16<<30),
		between("node.receive", n.Receive, 4<<20, 4<<30),
		between("node.serve", n.Serve, 4<<20, 4<<30),
		between("node.serve_peer", n.ServePeer, 1<<20, 4<<30),
		between("node.inline", n.Inline, 0, 256<<10),
		between("node.stream_memory", n.StreamMemory, 32<<20, 1<<40),
		between("node.stream_memory_peer", n.StreamMemoryPeer, 8<<20, 1<<40),
	}
	if n.ServePeer > n.Serve && n.Serve >= 4<<20 {
		errs = append(errs, Wrong("node.serve_peer", n.ServePeer, fmt.Sprintf("no more than node.serve, which is %v", n.Serve)))
	}
	return errors.Join(errs...)
}

// Jobs says how detached gets are worked at.
type Jobs struct {
	Workers  int      `toml:"workers" doc:"how many jobs are worked at at a time"`
	Silence  Duration `toml:"silence" doc:"how long an attempt may bring nothing before it has failed"`
	First    Duration `toml:"first" doc:"how long to wait after the first failure of a source; it doubles from then on"`
	Most     Duration `toml:"most" doc:"the longest such wait"`
	Patience Duration `toml:"patience" doc:"for how long all that a job asks may fail before it is given up"`
}

func defaultJobs() Jobs {
	return Jobs{
		Workers: 4, Silence: Duration(2 * time.Minute), First: Duration(20 * time.Second), Most: Duration(10 * time.Minute),
		Patience: Duration(24 * time.Hour),
	}
}

func (j *Jobs) check() error {
	return errors.Join(
		between("jobs.workers", j.Workers, 1, 256),
		between("jobs.silence", j.Silence, Duration(time.Second), Duration(24*time.Hour)),
		between("jobs.first", j.First, Duration(100*time.Millisecond), Duration(time.Hour)),
		between("jobs.most", j.Most, j.First, Duration(24*time.Hour)),
		between("jobs.patience", j.Patience, Duration(time.Second), Duration(365*24*time.Hour)),
	)
}
