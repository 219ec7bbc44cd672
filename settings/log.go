package settings

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
)

// Log says what the daemon writes to stderr about what goes on.
type Log struct {
	Level  string `toml:"level" doc:"what is logged to stderr: debug, info, warn, error or off"`
	Format string `toml:"format" doc:"how: text or json"`
}

// The values of log.level and log.format.
var (
	logLevels  = []string{"debug", "info", "warn", "error", "off"}
	logFormats = []string{"text", "json"}
)

func (l *Log) check() error {
	var errs []error
	if !slices.Contains(logLevels, l.Level) {
		errs = append(errs, Wrong("log.level", l.Level, oneOf(logLevels)))
	}
	if !slices.Contains(logFormats, l.Format) {
		errs = append(errs, Wrong("log.format", l.Format, oneOf(logFormats)))
	}
	return errors.Join(errs...)
}

// At returns the least level that is logged; off reports that nothing is.
func (l *Log) At() (level slog.Level, off bool) {
	if l.Level == "off" {
		return slog.LevelError, true
	}
	_ = level.UnmarshalText([]byte(l.Level)) // was checked
	return level, false
}

// oneOf lists what a value may be.
func oneOf(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
