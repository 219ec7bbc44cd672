package exchange

import (
	"fmt"
	"time"
)

// Health is what the engine thinks of a peer's ability to deliver.
//
//	Unknown → Connected → Healthy ⇄ Slow → BackedOff → Probing → Healthy
//	any → Banned, any → Gone, Gone → Connected
//
// BackedOff and Probing are the circuit breaker: open and half open.
type Health uint8

// The states.
const (
	HealthUnknown Health = iota
	HealthConnected
	HealthHealthy
	HealthSlow
	HealthBackedOff
	HealthProbing
	HealthBanned
	HealthGone
)

const (
	backOffFirst = time.Second
	backOffMax   = 10 * time.Minute
	probes       = 2 // asks a probing peer may have at a time, and deliveries that make it healthy
	slowAsks     = 8 // asks a slow peer may have at a time
)

// health is the state machine of one peer, fed by deliveries, stalls and offences. Owned by the engine.
type health struct {
	state   Health
	until   time.Duration // end of a back-off or ban; 0 when neither
	backOff time.Duration // the next back-off
	good    int           // deliveries while probing
	reason  string        // of a ban
}

func (h *health) connected(now time.Duration) {
	switch {
	case h.until > now && h.state == HealthBanned:
	case h.until > now && h.backOff > 0:
		h.state = HealthBackedOff
	default:
		h.state, h.until = HealthConnected, 0
	}
}

// gone keeps a ban and a back-off for the next connection.
func (h *health) gone() {
	if h.state != HealthBanned {
		h.state = HealthGone
	}
}

func (h *health) usable() bool {
	switch h.state {
	case HealthConnected, HealthHealthy, HealthSlow, HealthProbing:
		return true
	}
	return false
}

// limit is how many blocks the peer may be asked for at a time.
func (h *health) limit() int {
	switch h.state {
	case HealthProbing:
		return probes
	case HealthSlow:
		return slowAsks
	}
	return maxEntries
}

// delivered notes a block that was asked for.
func (h *health) delivered() {
	switch h.state {
	case HealthConnected, HealthSlow:
		h.state = HealthHealthy
		h.backOff = 0
	case HealthProbing:
		if h.good++; h.good >= probes {
			h.state, h.backOff = HealthHealthy, 0
		}
	case HealthBackedOff: // it was only late
		h.state, h.good, h.until = HealthProbing, 1, 0
	}
}

// stalled notes that the peer let its patience run out. It reports whether the peer backs off now.
func (h *health) stalled(now time.Duration, jitter float64) bool {
	switch h.state {
	case HealthConnected, HealthHealthy:
		h.state = HealthSlow
		return false
	case HealthSlow, HealthProbing:
		h.backOff = min(max(2*h.backOff, backOffFirst), backOffMax)
		h.state, h.good = HealthBackedOff, 0
		h.until = now + time.Duration(float64(h.backOff)*(1+0.2*jitter))
		return true
	}
	return false
}

// ban refuses the peer until the given time.
func (h *health) ban(until time.Duration, reason string) {
	h.state, h.until, h.reason = HealthBanned, until, reason
}

// due returns when the state changes by itself, if it does.
func (h *health) due() (time.Duration, bool) { return h.until, h.until != 0 }

// advance makes the changes that are due by themselves and reports whether there was one.
func (h *health) advance(now time.Duration) bool {
	if h.until == 0 || now < h.until {
		return false
	}
	h.until = 0
	switch h.state {
	case HealthBackedOff:
		h.state, h.good = HealthProbing, 0
	case HealthBanned:
		h.state = HealthGone
	}
	return true
}

// Violation is an offence of a peer's: something that an honest peer never sends. Anything else that goes wrong is ours.
type Violation struct {
	// What the peer did.
	What string
}

// Error names the offence.
func (v *Violation) Error() string { return fmt.Sprintf("the peer broke the protocol: %s", v.What) }
