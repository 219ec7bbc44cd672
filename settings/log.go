package settings

import (
	"errors"
	"log/slog"
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
	return errors.Join(among("log.level", l.Level, logLevels), among("log.format", l.Format, logFormats))
}

// At returns the least level that is logged; off reports that nothing is.
func (l *Log) At() (level slog.Level, off bool) {
	if l.Level == "off" {
		return slog.LevelError, true
	}
	_ = level.UnmarshalText([]byte(l.Level)) // was checked
	return level, false
}
