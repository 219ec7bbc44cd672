package settings

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span as people write it: 30s, 1m30s, 2h, 250ms.
type Duration time.Duration

// UnmarshalText reads a span.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil || v < 0 {
		return fmt.Errorf("no time span; right is one like 30s, 1m30s or 250ms")
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes a span, without units that are zero.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes a span, without units that are zero: 1m, not 1m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if short, ok := strings.CutSuffix(s, "m0s"); ok {
		s = short + "m"
	}
	if short, ok := strings.CutSuffix(s, "h0m"); ok {
		s = short + "h"
	}
	return s
}

// Size is a number of bytes as people write it: 10GB, 64KiB, 1.5 MiB, 4096.
type Size int64

// sizeUnits are the units, the largest first, those of 1024 before those of 1000.
var sizeUnits = []struct {
	name   string
	factor int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"B", 1},
}

// UnmarshalText reads a size. A bare number is bytes.
func (s *Size) UnmarshalText(text []byte) error {
	const right = "right is one like 10GB, 64KiB or 4096"
	in := strings.TrimSpace(string(text))
	digits := strings.IndexFunc(in, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if digits < 0 {
		digits = len(in)
	}
	unit := strings.TrimSpace(in[digits:])
	factor := int64(0)
	for _, u := range sizeUnits {
		if strings.EqualFold(unit, u.name) || strings.EqualFold(unit, strings.TrimSuffix(u.name, "B")) {
			factor = u.factor
			break
		}
	}
	n, err := strconv.ParseFloat(in[:digits], 64)
	if err != nil || factor == 0 {
		return fmt.Errorf("no size; %s", right)
	}
	if n *= float64(factor); n >= math.MaxInt64 {
		return fmt.Errorf("more than any disk holds; %s", right)
	}
	*s = Size(math.Round(n))
	return nil
}

// MarshalText writes a size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String writes a size exactly, in the unit in which that is shortest.
func (s Size) String() string {
	best := strconv.FormatInt(int64(s), 10) + "B"
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.factor == 0 {
			if text := strconv.FormatInt(int64(s)/u.factor, 10) + u.name; len(text) < len(best) {
				best = text
			}
		}
	}
	return best
}
