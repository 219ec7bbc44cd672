package p2p

import (
	"log/slog"
	"os"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
)

// libp2p logs to standard error, in the whole process alike, also what is no trouble, such as a socket that was closed
// already. What matters comes back as errors, so its log is off unless the operator asks for it by libp2p's own variable.
func init() {
	if os.Getenv("GOLOG_LOG_LEVEL") == "" {
		gologshim.SetDefaultHandler(slog.DiscardHandler)
		golog.SetAllLoggers(golog.LevelPanic) // that of the DHT
	}
}
