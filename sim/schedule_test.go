package sim

import (
	"errors"
	"strings"
	"testing"
)

// TestScheduleText: what is written is read back as the same, and plays the same history.
func TestScheduleText(t *testing.T) {
	for seed := range uint64(300) {
		s := Plan(seed + 1)
		text := s.String()
		if again := Plan(seed + 1).String(); again != text {
			t.Fatalf("seed %d gives two schedules:\n%s\n%s", seed+1, text, again)
		}
		back, err := ParseSchedule("# a comment\n\n" + text)
		if err != nil {
			t.Fatalf("seed %d: %v in\n%s", seed+1, err, text)
		}
		if back.String() != text {
			t.Fatalf("seed %d: read back as\n%s\nwant\n%s", seed+1, back, text)
		}
		if seed%10 != 0 {
			continue
		}
		a, errA := s.Run(Config{CheckEvery: -1})
		b, errB := back.Run(Config{CheckEvery: -1})
		if errA != nil || errB != nil || a.Trace != b.Trace {
			t.Fatalf("seed %d: %v and %v, traces %x and %x", seed+1, errA, errB, a.Trace, b.Trace)
		}
	}
}

func TestScheduleRefused(t *testing.T) {
	const good = "world file=8\nhost 0 anchor all\nhost 1 getter whole\nlink 0 1\n"
	if _, err := ParseSchedule(good); err != nil {
		t.Fatal(err)
	}
	for bad, reason := range map[string]string{
		"":                                                   "0 blocks",
		good + "hots 2 holder":                               "line 5",
		good + "host 2 helper":                               "roles",
		good + "host 1 holder":                               "twice",
		good + "host 2 holder has=1":                         "no block 1 of 1",
		good + "host 2 holder knows=9":                       "skeleton",
		good + "host 2 holder up=fast":                       "invalid syntax",
		good + "host 2 holder all=yes":                       "takes no value",
		good + "host 2 holder version=9":                     "no version",
		good + "host 2 holder misuse=99":                     "no misuse",
		good + "host 2 holder colour=red":                    "colour",
		good + "host 2 getter want=5-1":                      "no list",
		good + "host 2 getter want=0-9999999999":             "no list",
		good + "link 0 9":                                    "no host 0 or 9",
		good + "link 0":                                      "lacks words",
		good + "at 1s explode 0":                             "explode",
		good + "at soon freeze 0":                            "invalid duration",
		good + "at 1s freeze 7":                              "to which host",
		good + "at 1s freeze":                                "lacks words",
		good + "at 1s give 0 blocks=3":                       "no block 3",
		strings.Replace(good, "file=8", "count=99999999", 1): "blocks",
	} {
		if _, err := ParseSchedule(bad); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want a word of %q", strings.TrimPrefix(bad, good), err, reason)
		}
	}
}

// TestFailureNames: two failures of one kind are equal whatever the hosts, blocks, times and numbers in them.
func TestFailureNames(t *testing.T) {
	for _, row := range [][2]string{
		{"at 1.5s: h3 writes b12 twice at once", "at 22m0.1s: h1 writes r4 twice at once"},
		{"at 16m2s h1 lacks b6 though h0 has it and is connected: session 1", "at 9s h12 lacks r0 though h0 has it and is connected"},
		{"at 1s: h0: want bafk counts 3 asks\nstack 1", "at 12µs: h9: want bafk counts 17 asks"},
	} {
		a, b := Failure(errors.New(row[0])), Failure(errors.New(row[1]))
		if a != b || a == "" {
			t.Errorf("%q and %q", a, b)
		}
	}
	if a, b := Failure(errors.New("at 1s: h1 lies")), Failure(errors.New("at 1s: h1 dies")); a == b || Failure(nil) != "" {
		t.Errorf("%q and %q are not one kind", a, b)
	}
}
