package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"dray/node"
)

// What the daemon tells systemd, or whoever else set NOTIFY_SOCKET, and takes from it. Without one, all this does nothing.

// notify tells the service manager. That it does not listen is not worth stopping for.
func (h *house) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		h.env.log().Debug("the service manager was not told", "state", state, "err", err)
	}
}

// startWatchdog tells the service manager twice in each of its intervals that the daemon lives, as long as the engine's loop
// answers, and returns what ends that.
func (h *house) startWatchdog() (end func()) {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return func() {}
	}
	return watch(func(done <-chan struct{}) { beat(done, h.node, every/2, h.notify) })
}

func beat(done <-chan struct{}, n *node.Node, every time.Duration, notify func(string)) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), every)
		err := n.Alive(ctx)
		cancel()
		if err == nil {
			notify(sd.SdNotifyWatchdog)
		}
		select {
		case <-t.C:
		case <-done:
			return
		}
	}
}

// passedListener returns the socket that systemd passes for HTTP, or nil when there is none.
func passedListener() (net.Listener, error) {
	list, err := activation.Listeners()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	for _, l := range list[1:] {
		if l != nil {
			l.Close()
		}
	}
	if len(list) > 1 || list[0] == nil {
		if list[0] != nil {
			list[0].Close()
		}
		return nil, fmt.Errorf("the service manager passes %d sockets, and not one stream socket, which HTTP is served on; "+
			"right is one ListenStream= in the unit of type socket", len(list))
	}
	return list[0], nil
}
