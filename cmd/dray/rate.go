package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// rate is a flag's number of bytes a second; 0 is no limit.
type rate struct {
	bytes int64
	given bool
}

const (
	rateHelp  = "right is one like 10MB/s, 2.5MiB/s or 100Mbit/s, or off"
	leastRate = 1000
	mostRate  = 1e15
)

var rateUnits = map[string]float64{
	"": 1, "B": 1,
	"k": 1e3, "K": 1e3, "kB": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9, "T": 1e12, "TB": 1e12,
	"Ki": 1 << 10, "KiB": 1 << 10, "Mi": 1 << 20, "MiB": 1 << 20, "Gi": 1 << 30, "GiB": 1 << 30, "Ti": 1 << 40, "TiB": 1 << 40,
	"kbit": 1e3 / 8, "Mbit": 1e6 / 8, "Gbit": 1e9 / 8, "Tbit": 1e12 / 8,
}

// parseRate reads a number of bytes a second.
func parseRate(s string) (int64, error) {
	text := strings.TrimSpace(s)
	if text == "off" || text == "none" || text == "0" {
		return 0, nil
	}
	text = strings.TrimSuffix(text, "/s")
	digits := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if digits < 0 {
		digits = len(text)
	}
	n, err := strconv.ParseFloat(text[:digits], 64)
	unit := strings.TrimSpace(text[digits:])
	factor, known := rateUnits[unit]
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no rate; %s", clip(s), rateHelp)
	case !known && len(unit) == 2 && unit[1] == 'b':
		big := strings.ToUpper(unit[:1])
		return 0, fmt.Errorf("%q may be bits or bytes; right is %[2]sB/s for bytes, or %[2]sbit/s for bits", clip(s), big)
	case !known:
		return 0, fmt.Errorf("%q is no unit of a rate; %s", clip(unit), rateHelp)
	}
	switch n *= factor; {
	case n < leastRate:
		return 0, fmt.Errorf("%q is less than 1 kB/s, at which nothing arrives; %s", clip(s), rateHelp)
	case n > mostRate:
		return 0, fmt.Errorf("%q is more than any line carries; %s", clip(s), rateHelp)
	}
	return int64(math.Round(n)), nil
}

// String, Set and Type make a rate the value of a flag.
func (r *rate) String() string {
	if !r.given {
		return ""
	}
	return rateName(r.bytes)
}

// Set reads the flag.
func (r *rate) Set(s string) (err error) {
	r.bytes, err = parseRate(s)
	r.given = err == nil
	return err
}

// Type names the value in help.
func (r *rate) Type() string { return "rate" }

// rateName writes a limit for people.
func rateName(n int64) string {
	if n == 0 {
		return "no limit"
	}
	return size(n) + "/s"
}
