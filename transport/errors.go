package transport

import "errors"

// The causes of a failed Open, Read or Write that callers tell apart with [errors.Is]. Deadlines use
// [os.ErrDeadlineExceeded], dials [dray.ErrUnreachable], and a closed network [dray.ErrClosed].
var (
	// ErrRefused means that the other side speaks none of the protocols that Open was given. An implementation that
	// sends the first write together with the proposal reports it from Read or Write instead of Open.
	ErrRefused = errors.New("protocol refused")
	// ErrReset means that the stream was reset, by either side or because its connection is gone.
	ErrReset = errors.New("stream reset")
	// ErrTooMany means that a limit on connections, streams or memory is reached.
	ErrTooMany = errors.New("resource limit reached")
	// ErrBusy means that a peer has no room for more connections now. Dial's error wraps it besides [dray.ErrUnreachable].
	ErrBusy = errors.New("no room for more connections")
)
