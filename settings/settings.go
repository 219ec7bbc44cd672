// Package settings is what a daemon may be told: the file config.toml of a home, as Go values. Each part of the daemon has a
// section of its own; what is not said has the value that Default gives it.
//
// # Terms
//
// A section is a table of the file, such as [http], and a field of Settings. A key is a section's name, a dot and a field's,
// such as http.listen. The tag toml of a field is its name in the file, and the tag doc says what it means, to people.
//
// # What it does not do
//
// It reads no flags and starts nothing. It checks that values make sense alone, not that a port is free or a file exists.
package settings

import (
	"errors"
	"fmt"

	"github.com/BurntSushi/toml"
)

// Settings are all that a daemon may be told. Sections are independent of each other. They are values, read once at the start.
type Settings struct {
	// HTTP is the server that the other doors hang in.
	HTTP HTTP `toml:"http"`
}

// HTTP says where and to whom the daemon speaks HTTP.
type HTTP struct {
	// Listen is the TCP address, HOST:PORT. "off" means that there is no HTTP.
	Listen string `toml:"listen" doc:"where HTTP is served, HOST:PORT, or off"`
}

// Default returns the settings of a daemon that was told nothing.
func Default() Settings {
	return Settings{HTTP: HTTP{Listen: "127.0.0.1:4871"}}
}

// Parse returns the settings that the text of a file says, the rest being as in from. It refuses keys that do not exist.
func Parse(text []byte, from Settings) (Settings, error) {
	s := from
	about, err := toml.Decode(string(text), &s)
	if err != nil {
		return from, err
	}
	var errs []error
	for _, key := range about.Undecoded() {
		errs = append(errs, fmt.Errorf("there is no key %q", key.String()))
	}
	return s, errors.Join(append(errs, s.Check())...)
}

// Check says which values make no sense.
func (s *Settings) Check() error { return errors.Join(s.HTTP.check()) }

func (h *HTTP) check() error {
	if h.Listen == "" {
		return errors.New(`http.listen is empty; say "off" for no HTTP`)
	}
	return nil
}
