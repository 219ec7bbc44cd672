package settings

import (
	"slices"
	"time"
)

// Balanced returns the defaults: for a machine with a few cores that does other things as well.
func Balanced() Settings { return Default() }

// LowLatency returns settings for many small things that somebody waits for: what fits into two packets comes with the first
// answer, and what fails is tried again soon.
func LowLatency() Settings {
	s := Default()
	s.Preset = "low-latency"
	s.Node.Inline = 16 << 10
	s.Node.Workers = 8
	s.Node.Memory = 256 << 20
	s.Jobs.Silence = Duration(30 * time.Second)
	s.Jobs.First = Duration(2 * time.Second)
	s.Jobs.Most = Duration(time.Minute)
	return s
}

// Throughput returns settings for machines whose memory is there to be used: more is on its way at a time, to peers, in
// memory and to the disk.
func Throughput() Settings {
	s := Default()
	s.Preset = "throughput"
	s.Node.Memory = 1 << 30
	s.Node.Workers = 8
	s.Node.Streams = 4
	s.Node.Frames = 128 << 20
	s.Node.Receive = 48 << 20
	s.Node.Serve = 64 << 20
	s.Node.ServePeer = 16 << 20
	s.Node.Peers = 4096
	s.Node.PeersPerAddress = 1024
	s.Node.StreamMemory = 4 << 30
	s.Jobs.Workers = 8
	return s
}

// Edge returns settings for small machines on lines that come and go: little memory, few peers, and patience of three days.
func Edge() Settings {
	s := Default()
	s.Preset = "edge"
	s.Node.Memory = 48 << 20
	s.Node.Workers = 2
	s.Node.Streams = 1
	s.Node.Frames = 8 << 20
	s.Node.Receive = 4 << 20
	s.Node.Serve = 4 << 20
	s.Node.ServePeer = 1 << 20
	s.Node.Peers = 64
	s.Node.StreamMemory = 64 << 20
	s.Node.StreamMemoryPeer = 16 << 20
	s.HTTP.Connections = 256
	s.HTTP.ConnectionsPerAddress = 64
	s.Jobs.Workers = 1
	s.Jobs.Silence = Duration(90 * time.Second)
	s.Jobs.First = Duration(10 * time.Second)
	s.Jobs.Patience = Duration(72 * time.Hour)
	return s
}

// Federated returns settings for many participants behind shared addresses who are seldom there: many of them may come from
// one address, and jobs wait for them for a week.
func Federated() Settings {
	s := Default()
	s.Preset = "federated"
	s.Node.Peers = 2048
	s.Node.PeersPerAddress = 1024
	s.Node.Serve = 32 << 20
	s.Node.ServePeer = 2 << 20
	s.Jobs.Workers = 2
	s.Jobs.Silence = Duration(3 * time.Minute)
	s.Jobs.First = Duration(30 * time.Second)
	s.Jobs.Most = Duration(30 * time.Minute)
	s.Jobs.Patience = Duration(7 * 24 * time.Hour)
	return s
}

// presets are the presets by name, in the order in which they are listed.
var presets = []struct {
	name string
	make func() Settings
}{
	{"balanced", Balanced},
	{"low-latency", LowLatency},
	{"throughput", Throughput},
	{"edge", Edge},
	{"federated", Federated},
}

// Presets lists the names of presets.
func Presets() []string {
	var names []string
	for _, p := range presets {
		names = append(names, p.name)
	}
	return names
}

// presetOf returns the settings of a preset.
func presetOf(name string) (Settings, bool) {
	for _, p := range presets {
		if p.name == name {
			return p.make(), true
		}
	}
	return Settings{}, false
}

func checkPreset(name string) error {
	if slices.Contains(Presets(), name) {
		return nil
	}
	right := oneOf(Presets())
	if near, ok := Nearest(name, Presets()); ok {
		right += "; did you mean " + near + "?"
	}
	return Wrong("preset", name, right)
}
