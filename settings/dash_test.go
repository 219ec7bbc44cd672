package settings

import (
	"strings"
	"testing"
)

// TestDash reads the page's section, right and wrong.
func TestDash(t *testing.T) {
	for _, r := range []struct {
		text string
		want Dash
		err  string
	}{
		{"", Dash{Enabled: true, Actions: true, Listeners: 32}, ""},
		{"[dash]\nenabled = false", Dash{Actions: true, Listeners: 32}, ""},
		{"[dash]\nactions = false\nlisteners = 3", Dash{Enabled: true, Listeners: 3}, ""},
		{"[dash]\nlisteners = 0", Dash{}, "dash.listeners is 0"},
		{"[dash]\nlisteners = 1001", Dash{}, "dash.listeners is 1001"},
	} {
		s, err := Read(Input{File: "c.toml", Text: []byte(r.text)})
		switch {
		case r.err != "" && (err == nil || !strings.Contains(err.Error(), r.err)):
			t.Errorf("%q: %v, want %s", r.text, err, r.err)
		case r.err == "" && (err != nil || s.Dash != r.want):
			t.Errorf("%q: %+v, %v; want %+v", r.text, s.Dash, err, r.want)
		}
	}
}
