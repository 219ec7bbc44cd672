package dash_test

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestContrast computes the contrast of every pair of colours that text or signs are made of, in both themes, as WCAG 2.2 has it:
// 4.5 for text, 3 for what else must be seen.
func TestContrast(t *testing.T) {
	text, err := os.ReadFile("page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	colours := map[string][2]string{}
	for _, m := range regexp.MustCompile(`--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)`).FindAllStringSubmatch(string(text), -1) {
		colours[m[1]] = [2]string{m[2], m[3]}
	}
	pairs := map[string][]string{
		"ink":       {"bg", "surface", "sunken"},
		"muted":     {"bg", "surface", "sunken"},
		"accent":    {"bg", "surface"},
		"on-accent": {"accent"},
		"good":      {"good-soft", "surface"},
		"warn":      {"warn-soft", "surface"},
		"bad":       {"bad-soft", "surface"},
	}
	check := func(front, back string, least float64) {
		t.Helper()
		a, known := colours[front]
		b, knownToo := colours[back]
		if !known || !knownToo {
			t.Errorf("--%s or --%s is not in the style sheet", front, back)
			return
		}
		for i, theme := range []string{"light", "dark"} {
			if c := contrast(t, a[i], b[i]); c < least {
				t.Errorf("%s: --%s on --%s has %.2f, want %.1f", theme, front, back, c, least)
			}
		}
	}
	for front, backs := range pairs {
		for _, back := range backs {
			check(front, back, 4.5)
		}
	}
	for _, sign := range []string{"in", "out", "edge", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "here"} {
		check(sign, "surface", 3)
	}
	// A colour that is not one of the tokens would not be looked at here.
	rules := string(text)[strings.Index(string(text), "* { box-sizing"):]
	if m := regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b`).FindString(rules); m != "" {
		t.Errorf("%s stands outside of the tokens", m)
	}
}

func contrast(t *testing.T, a, b string) float64 {
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + .05) / (min(x, y) + .05)
}

func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(colour[1:], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	part := func(shift int) float64 {
		c := float64(n>>shift&255) / 255
		if c <= .04045 {
			return c / 12.92
		}
		return math.Pow((c+.055)/1.055, 2.4)
	}
	return .2126*part(16) + .7152*part(8) + .0722*part(0)
}

// TestPageSource keeps the page from what its own policy, or a reader, would not stand.
func TestPageSource(t *testing.T) {
	entries, err := os.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, e := range entries {
		text, err := os.ReadFile("page/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		total += len(text)
		s := strings.ReplaceAll(string(text), `"http://www.w3.org/2000/svg"`, "")
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http://", "https://", "@import", " style="} {
			if strings.Contains(s, bad) {
				t.Errorf("%s has %q", e.Name(), bad)
			}
		}
		if strings.HasSuffix(e.Name(), ".html") && regexp.MustCompile(`<script(>| type="module">)|\son[a-z]+=`).MatchString(s) {
			t.Errorf("%s has a script in it", e.Name())
		}
	}
	if total > 100_000 {
		t.Errorf("the page has %d bytes", total)
	}
}
