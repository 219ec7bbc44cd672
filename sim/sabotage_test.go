package sim

import (
	"regexp"
	"strings"
	"testing"
)

// pair is one anchor with twelve blocks and one getter; rows of TestSabotage add to it.
const pair = `
world file=4000-4011 leaves=0-11 bones=2
host 0 anchor version=swap delay=5ms
host 1 getter version=swap delay=5ms root
link 0 1
`

// plainPair speaks Bitswap.
const plainPair = `
world file=4000-4011 leaves=0-11 bones=2
host 0 anchor delay=5ms up=100000
host 1 getter delay=5ms up=100000 whole
link 0 1
`

// deaf is a getter of nothing in particular whose peer never answers.
const deaf = `
world file=4000-4011
host 0 holder mute
host 1 holder
link 0 1
at 0s fetch 1 whole n=1
`

// TestSabotage breaks the driver on purpose: whatever watches over an invariant must notice. Without the sabotage each scenario ends
// well.
func TestSabotage(t *testing.T) {
	for name, row := range map[string]struct {
		s        sabotage
		schedule string
		notices  string
	}{
		"1 wrong bytes":            {sabotageBytes, plainPair, "is asked to write wrong bytes"},
		"2 told before written":    {sabotageStored, plainPair, "is told of .* before it is written"},
		"2 durable before synced":  {sabotageSynced, pair + "at 0s count-copies 1\nat 0s count-copies 0\n", "says that .* is durable, which is not synced"},
		"3 kept unasked":           {sabotageUninvited, plainPair + "host 2 holder uninvited=10ms\nlink 1 2\n", "writes .*, which nobody asked for"},
		"4 cancels lost":           {sabotageCancels, plainPair + "host 2 holder\nlink 1 2\n", "still has our want of .*, which nobody here wants"},
		"4, 9 wants lost":          {sabotageWants, deaf, "has never heard it"},
		"5 answered twice":         {sabotageTwice, plainPair, "is told of .*, which it does not wait for|arrives after session 1 ended"},
		"5 never answered":         {sabotageSilence, plainPair, "completes and .* wants have no answer"},
		"6 after cancel":           {sabotageCancelled, plainPair + "at 50ms fetch 1 whole n=1\nat 60ms abandon 1 n=1\n", "arrives after session 2 was cancelled"},
		"8 hoarding":               {sabotageHoard, pair + "host 2 holder flood=20000 mute\nlink 2 0\nat 10s connect 0 peer=1", "bytes are kept for h2"},
		"9 said on a dead line":    {sabotageReconnect, deaf + "at 300ms cut 0 peer=1 for=10ms\n", "has never heard it"},
		"9 haves lost":             {sabotageHaves, pair + "at 0s count-copies 1\nat 0s count-copies 0\n", "believes that .* has leaf"},
		"11 not on the wire":       {sabotageLedger, plainPair, "the ledger says"},
		"12 starved":               {sabotageStarve, plainPair, "h1 has waited .* for b0, which h0 has"},
		"13 forgotten":             {sabotageForgotten, plainPair + "at 50ms crash 1 for=50ms hosts=0\n", "h1 lacks .* though h0 has it"},
		"honest peers are dropped": {sabotageBan, plainPair, "drops h0, who is honest"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ParseSchedule(row.schedule)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Run(Config{}); err != nil {
				t.Fatalf("without sabotage: %v", err)
			}
			_, err = s.Run(Config{sabotage: row.s})
			if err == nil || !regexp.MustCompile(row.notices).MatchString(err.Error()) {
				t.Fatalf("%v, want %q", err, row.notices)
			}
		})
	}
}

// TestShrink: of a random scenario in which a sabotaged driver fails, no more is left than the failure needs.
func TestShrink(t *testing.T) {
	for _, row := range []struct {
		s     sabotage
		lines int // of the shortest schedule
	}{
		{sabotageStored, 5}, {sabotageBytes, 5}, {sabotageBan, 5}, {sabotageCancelled, 8},
	} {
		fails := failure(Config{sabotage: row.s, CheckEvery: -1})
		for seed := uint64(1); ; seed++ {
			s := Plan(seed)
			if fails(s) == "" || len(s.Events) < 6 {
				continue
			}
			short, runs := Shrink(s, fails)
			text := short.String()
			if n := strings.Count(text, "\n"); n > row.lines {
				t.Errorf("%q is left with %d lines of %d:\n%s", fails(s), n, strings.Count(s.String(), "\n"), text)
			}
			if back, err := ParseSchedule(text); err != nil || fails(back) != fails(s) {
				t.Errorf("%v: what is left does not fail as %q:\n%s", err, fails(s), text)
			}
			t.Logf("seed %d, %d lines and %d schedules later: %s\n%s", seed, strings.Count(s.String(), "\n"), runs, fails(short), text)
			break
		}
	}
}
