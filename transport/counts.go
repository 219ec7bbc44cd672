package transport

import (
	"maps"
	"sync"
)

// Count is how much was sent, received or dropped. Bytes are those of the messages' data: neither labels nor framing count,
// on either side, so that what one host counts as sent is what the other counts as received.
type Count struct {
	Messages, Bytes int64
}

func (c *Count) add(bytes int) {
	c.Messages++
	c.Bytes += int64(bytes)
}

// Stats says what links have carried, by label. The messages of the state lane are counted under [StateLabel].
type Stats struct {
	// Sent are messages that arrived: their receivers have said so. Where receivers do not, they were written.
	Sent map[string]Count
	// Received are messages that came, without duplicates, whether their sender was admitted or not.
	Received map[string]Count
	// Dropped are messages that were thrown away: by the event lane, because newer ones came; those of undecided peers,
	// for the same reason or because the peers were not admitted; those that waited for a peer when its link was closed.
	Dropped map[string]Count
	// Repeated are messages that came a second time and were left out.
	Repeated int64
}

// Total adds up the labels of one of the maps in [Stats].
func Total(by map[string]Count) Count {
	var t Count
	for _, c := range by {
		t.Messages += c.Messages
		t.Bytes += c.Bytes
	}
	return t
}

// maxLabels bounds how many labels are counted by name; peers choose labels. What has others is counted under "".
const maxLabels = 256

// counts gathers [Stats]. It is safe for concurrent use; a nil one counts nothing.
type counts struct {
	mu    sync.Mutex
	stats Stats
}

func newCounts() *counts {
	return &counts{stats: Stats{
		Sent: make(map[string]Count), Received: make(map[string]Count), Dropped: make(map[string]Count),
	}}
}

func (c *counts) sent(label string, bytes int) {
	if c != nil {
		c.add(c.stats.Sent, label, bytes)
	}
}

func (c *counts) received(label string, bytes int) {
	if c != nil {
		c.add(c.stats.Received, label, bytes)
	}
}

func (c *counts) dropped(label string, bytes int) {
	if c != nil {
		c.add(c.stats.Dropped, label, bytes)
	}
}

func (c *counts) repeated() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Repeated++
}

func (c *counts) add(to map[string]Count, label string, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, known := to[label]
	if !known && len(to) >= maxLabels {
		label = ""
		n = to[label]
	}
	n.add(bytes)
	to[label] = n
}

// snapshot returns a copy.
func (c *counts) snapshot() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Sent: maps.Clone(c.stats.Sent), Received: maps.Clone(c.stats.Received), Dropped: maps.Clone(c.stats.Dropped),
		Repeated: c.stats.Repeated,
	}
}
