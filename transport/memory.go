package transport

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"dray"
)

// MemoryConfig describes the network that [NewMemory] makes. The zero value is a perfect network.
type MemoryConfig struct {
	// Latency is how long a byte travels one way. If zero, it arrives at once.
	Latency time.Duration
	// Bandwidth is what each direction between two hosts carries, in bytes a second, shared by all streams in the order
	// in which they write. If zero, there is no limit.
	Bandwidth int64
	// Window is how many bytes a stream holds in each direction that were written and not yet read; then Write blocks.
	// If zero, it is 256 KiB or twice Latency × Bandwidth, whichever is more.
	Window int
	// MaxStreams is how many streams a connection may have open. Open fails with [ErrTooMany] beyond it. If zero,
	// it is 4096.
	MaxStreams int
}

// Memory is a network inside one process: hosts, and a link in each direction between every two of them. It needs nothing
// from the operating system, and all its waiting is on channels and timers, so that it runs in virtual time inside a
// testing/synctest bubble. Its methods that break things are for tests. It is safe for concurrent use.
//
// A host that has connected to another knows what that one speaks, so Open never costs a round trip and reports a refusal
// itself. Dialling costs one round trip.
type Memory struct {
	config MemoryConfig

	mu    sync.Mutex // guards what follows; may be held while taking a host's or a link's lock, never the reverse
	hosts map[dray.PeerID]*memoryHost
	ports map[int]*memoryHost
	port  int
	links map[[2]dray.PeerID]*link
}

// NewMemory makes a network without hosts.
func NewMemory(config MemoryConfig) *Memory {
	if config.Window <= 0 {
		bytes := 2 * config.Latency.Seconds() * float64(config.Bandwidth)
		config.Window = max(256<<10, int(bytes))
	}
	if config.MaxStreams <= 0 {
		config.MaxStreams = 4096
	}
	return &Memory{
		config: config,
		hosts:  make(map[dray.PeerID]*memoryHost),
		ports:  make(map[int]*memoryHost),
		links:  make(map[[2]dray.PeerID]*link),
	}
}

// Host adds a host with the given id. It panics if there is one already, because only a test can be so wrong. After the
// host's Close the id may be used again, at another address.
func (m *Memory) Host(id dray.PeerID) Network {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.host(id)
}

// NewHost adds a host whose id follows from how many were added before, so that runs repeat.
func (m *Memory) NewHost() Network {
	m.mu.Lock()
	defer m.mu.Unlock()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(m.port+1))
	digest := sha256.Sum256(n[:])
	return m.host(dray.PeerID("\x12\x20" + string(digest[:])))
}

func (m *Memory) host(id dray.PeerID) *memoryHost {
	if m.hosts[id] != nil {
		panic("transport: memory host " + id.String() + " added twice")
	}
	m.port++
	h := &memoryHost{
		net:   m,
		id:    id,
		port:  m.port,
		done:  make(chan struct{}),
		known: make(map[dray.PeerID][]string),
		peers: make(map[dray.PeerID]*memoryPeer),
		dials: make(map[dray.PeerID]chan struct{}),
	}
	m.hosts[id] = h
	m.ports[m.port] = h
	return h
}

// SetLink changes what the link between a and b, both ways, does to bytes written from now on. Bandwidth 0 is no limit.
func (m *Memory) SetLink(a, b dray.PeerID, latency time.Duration, bandwidth int64) {
	for _, l := range m.between(a, b) {
		l.set(latency, bandwidth)
	}
}

// Cut breaks the connections between a and b as a reset does, and makes dials between them fail at once until [Memory.Heal].
func (m *Memory) Cut(a, b dray.PeerID) {
	for _, l := range m.between(a, b) {
		l.setFault(linkCut)
	}
	m.Drop(a, b)
}

// Stall makes everything that a and b send each other hang, silently, as when a cable is pulled: nothing fails, nothing
// arrives, dials wait. What was sent arrives after [Memory.Heal].
func (m *Memory) Stall(a, b dray.PeerID) {
	for _, l := range m.between(a, b) {
		l.setFault(linkStalled)
	}
}

// Heal ends what Cut and Stall did between a and b.
func (m *Memory) Heal(a, b dray.PeerID) {
	for _, l := range m.between(a, b) {
		l.setFault(linkUp)
	}
}

// Drop breaks the connections between a and b: both sides' streams are reset and both are told that the other is gone.
// They may dial again.
func (m *Memory) Drop(a, b dray.PeerID) {
	m.mu.Lock()
	h, other := m.hosts[a], m.hosts[b]
	m.mu.Unlock()
	if h == nil || other == nil {
		return
	}
	for _, e := range h.ends(b) {
		e.abort()
		e.other.abort()
	}
}

// Partition cuts every link between hosts of different groups and heals every link within a group. Hosts that are in no
// group keep their links.
func (m *Memory) Partition(groups ...[]dray.PeerID) {
	for i, g := range groups {
		for j, a := range g {
			for _, b := range g[j+1:] {
				m.Heal(a, b)
			}
			for _, other := range groups[i+1:] {
				for _, b := range other {
					m.Cut(a, b)
				}
			}
		}
	}
}

// between returns the links from a to b and from b to a.
func (m *Memory) between(a, b dray.PeerID) [2]*link {
	m.mu.Lock()
	defer m.mu.Unlock()
	return [2]*link{m.link(a, b), m.link(b, a)}
}

func (m *Memory) link(from, to dray.PeerID) *link {
	key := [2]dray.PeerID{from, to}
	l := m.links[key]
	if l == nil {
		l = &link{latency: m.config.Latency, bandwidth: m.config.Bandwidth, changed: make(chan struct{})}
		m.links[key] = l
	}
	return l
}

// at finds the host that an address leads to: /memory/PORT, with or without /p2p/ID.
func (m *Memory) at(addr string) (*memoryHost, error) {
	rest, ok := strings.CutPrefix(addr, "/memory/")
	if !ok {
		return nil, errors.New("not a /memory/ address")
	}
	number, _, _ := strings.Cut(rest, "/")
	port, err := strconv.Atoi(number)
	if err != nil {
		return nil, fmt.Errorf("port %q is not a number", number)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.ports[port]; h != nil {
		return h, nil
	}
	return nil, errors.New("connection refused")
}

// fault is what is wrong with a link.
type fault int

const (
	linkUp      fault = iota
	linkStalled       // bytes wait
	linkCut           // connections break and cannot be made
)

// link is one direction between two hosts.
type link struct {
	mu        sync.Mutex
	latency   time.Duration
	bandwidth int64     // bytes a second, 0 is no limit
	free      time.Time // when the last byte accepted so far has left
	fault     fault
	changed   chan struct{} // closed and replaced when fault changes
}

// send books n bytes and returns when they arrive at the other end.
func (l *link) send(n int, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	if l.bandwidth > 0 {
		l.free = l.free.Add(time.Duration(float64(n) / float64(l.bandwidth) * float64(time.Second)))
	}
	return l.free.Add(l.latency)
}

// state returns the link's fault and a channel that is closed when it changes.
func (l *link) state() (fault, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault, l.changed
}

func (l *link) set(latency time.Duration, bandwidth int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latency, l.bandwidth = latency, bandwidth
}

func (l *link) setFault(f fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault == f {
		return
	}
	l.fault = f
	close(l.changed)
	l.changed = make(chan struct{})
}

// cross waits as long as a message of n bytes takes over the link. It returns false when a stop is closed first.
func (l *link) cross(n int, stop, also <-chan struct{}) bool {
	return l.until(l.send(n, time.Now()), stop, also)
}

// until waits until the given time has come and the link is not stalled. It returns false when a stop is closed first.
func (l *link) until(arrival time.Time, stop, also <-chan struct{}) bool {
	t := time.NewTimer(time.Until(arrival))
	defer t.Stop()
	select {
	case <-t.C:
	case <-stop:
		return false
	case <-also:
		return false
	}
	for {
		f, changed := l.state()
		if f != linkStalled {
			return true
		}
		select {
		case <-changed:
		case <-stop:
			return false
		case <-also:
			return false
		}
	}
}
