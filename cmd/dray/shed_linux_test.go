//go:build amd64 || arm64

package main

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestShed gives the test's own program back, and goes on.
func TestShed(t *testing.T) {
	file := func() int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nRssFile:")
		line, _, _ := strings.Cut(rest, " kB")
		kib, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		return kib << 10
	}
	before := file()
	n, err := shed()
	after := file()
	if err != nil || n == 0 || after > before-int(n)/4 {
		t.Errorf("%d bytes were given back, %v: %d of files before and %d after", n, err, before, after)
	}
	for range 3 { // code, constants and tables come again
		if _, err := shed(); err != nil {
			t.Error(err)
		}
		b, err := json.Marshal(map[string]any{"a": []int{1, 2}, "b": strings.Repeat("x", 3)})
		if string(b) != `{"a":[1,2],"b":"xxx"}` || err != nil {
			t.Errorf("%s, %v", b, err)
		}
	}
}

// TestCleanParts takes what is the file's and clean, and nothing that could be lost.
func TestCleanParts(t *testing.T) {
	const clean = "Rss: 8 kB\nAnonymous: 0 kB\nSwap: 0 kB\n"
	for name, tt := range map[string]struct {
		smaps string
		want  []part
	}{
		"text": {"00400000-01bb3000 r-xp 00000000 fe:00 104 /bin/dray\nSize: 24268 kB\n" + clean, []part{{0x400000, 0x1bb3000, 8 << 10}}},
		"both, and another": {
			"400000-500000 r-xp 00000000 fe:00 104   /bin/dray\n" + clean + "500000-600000 r--p 00100000 fe:00 104   /bin/dray\n" + clean +
				"c000000000-c000400000 rw-p 00000000 00:00 0 \n" + clean + "7f0000000000-7f0000001000 r--p 0 fe:00 7 /lib/libc.so\n" + clean,
			[]part{{0x400000, 0x500000, 8 << 10}, {0x500000, 0x600000, 8 << 10}},
		},
		"a path with a space": {"400000-500000 r-xp 0 fe:00 104 /my programs/bin/dray\n" + clean, nil},
		"written":             {"400000-500000 r--p 0 fe:00 104 /bin/dray\nRss: 8 kB\nAnonymous: 4 kB\nSwap: 0 kB\n", nil},
		"swapped":             {"400000-500000 r--p 0 fe:00 104 /bin/dray\nRss: 8 kB\nAnonymous: 0 kB\nSwap: 4 kB\n", nil},
		"unknown":             {"400000-500000 r--p 0 fe:00 104 /bin/dray\nRss: 8 kB\n", nil},
		"writable":            {"400000-500000 rw-p 0 fe:00 104 /bin/dray\n" + clean, nil},
		"shared":              {"400000-500000 r--s 0 fe:00 104 /bin/dray\n" + clean, nil},
		"not there":           {"400000-500000 r--p 0 fe:00 104 /bin/dray\nRss: 0 kB\nAnonymous: 0 kB\n", nil},
		"replaced":            {"400000-500000 r-xp 0 fe:00 104 /bin/dray (deleted)\n" + clean, nil},
		"nothing":             {"", nil},
	} {
		got, err := cleanParts(strings.NewReader(tt.smaps), "/bin/dray")
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	if _, err := cleanParts(strings.NewReader("nonsense here\n"), "/bin/dray"); err == nil {
		t.Error("nonsense was read")
	}
}
