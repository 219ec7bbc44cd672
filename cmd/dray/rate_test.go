package main

import "testing"

func TestParseRate(t *testing.T) {
	for text, want := range map[string]int64{
		"10MB/s": 10e6, "10MB": 10e6, "10M": 10e6, "2.5MiB/s": 5 << 19, "100Mbit/s": 12500e3, "1kB": 1000, "8kbit/s": 1000,
		"1000": 1000, "1 GB/s": 1e9, "1GiB": 1 << 30, "off": 0, "none": 0, "0": 0, " 3k ": 3000, "1500 B/s": 1500,
	} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "-1MB", "MB", "1Mb", "1mb", "1mbit", "1e6", "1..2MB", "999", "7kbit", "NaN", "Inf", "1PB/h", "1MB/m", "99999999TB", "1/s/s",
	} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}
