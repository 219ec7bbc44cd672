package mirror

import (
	"testing"
	"time"
)

// Three clients of three nodes at once.
func TestAllAtOnce(t *testing.T) {
	h := newFakeHub(t, model())
	list := swarm(t, h, 3, nil)
	all(list, func(p *party) { p.wants(t, h) })
	h.once(t)
}

// One client after the other.
func TestOneAfterAnother(t *testing.T) {
	h := newFakeHub(t, model())
	for _, p := range swarm(t, h, 3, nil) {
		p.wants(t, h)
	}
	h.once(t)
}

// The upstream is gone when all is here; one node has not even heard of the commit's files.
func TestUpstreamDown(t *testing.T) {
	h := newFakeHub(t, model())
	list := swarm(t, h, 3, nil)
	all(list, func(p *party) { p.wants(t, h) })
	h.set(func() { h.down = true })
	for _, p := range list {
		p.wants(t, h)
	}
	h.once(t)
}

// An upstream that breaks off every few hundred KiB.
func TestBreaksOff(t *testing.T) {
	h := newFakeHub(t, model())
	h.set(func() { h.breakAt = 700 << 10 })
	list := swarm(t, h, 3, func(_ *Config, u *UpstreamConfig) { u.Backoff = time.Millisecond })
	all(list, func(p *party) { p.wants(t, h) })
	h.once(t)
}
