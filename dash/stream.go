package dash

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	busyTick  = 500 * time.Millisecond // between looks while something is transferred
	idleTick  = time.Second            // otherwise
	heartbeat = 10 * time.Second       // without news, so that both sides notice when the other is gone
	slowest   = 15 * time.Second       // that a listener may take to accept what it is sent
)

// cursor is what a listener was sent last. The zero value has been sent nothing.
type cursor struct {
	epoch   int64 // when the node began: another node's cursor means nothing
	version uint64
	record  uint64
	second  int64 // of the flow
}

func (c cursor) String() string {
	return fmt.Sprintf("%d-%d-%d-%d", c.epoch, c.version, c.record, c.second)
}

// parseCursor reads what String writes; anything else is a listener that has been sent nothing.
func parseCursor(s string) (c cursor) {
	f := strings.Split(s, "-")
	if len(f) != 4 {
		return cursor{}
	}
	var errs [4]error
	c.epoch, errs[0] = strconv.ParseInt(f[0], 10, 64)
	c.version, errs[1] = strconv.ParseUint(f[1], 10, 64)
	c.record, errs[2] = strconv.ParseUint(f[2], 10, 64)
	c.second, errs[3] = strconv.ParseInt(f[3], 10, 64)
	for _, err := range errs {
		if err != nil {
			return cursor{}
		}
	}
	return c
}

// serveEvents is the stream of news. Each event holds the sections that changed since the one before; the first, or the first
// after the daemon was started anew, holds all.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, "as many pages are open as may be ("+strconv.Itoa(s.cfg.Listeners)+"); close one")
		return
	}
	defer s.leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies that collect what they pass on
	rc := http.NewResponseController(w)
	send := func(text string) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(slowest)) // where there are no deadlines, the server's own count
		_, err := w.Write([]byte(text))
		return err == nil && rc.Flush() == nil
	}
	if !send("retry: 1000\n\n") {
		return
	}
	at := parseCursor(r.Header.Get("Last-Event-Id"))
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	s.view.refresh(r.Context(), time.Now(), busyTick/2)
	for {
		changed := s.view.changed()
		body, next := s.view.since(at, time.Now())
		if body != nil {
			if !send("id: " + next.String() + "\nevent: state\ndata: " + string(body) + "\n\n") {
				return
			}
			at = next
			beat.Reset(heartbeat)
		}
		select {
		case <-changed:
		case <-beat.C:
			if !send("event: beat\ndata: 0\n\n") {
				return
			}
			beat.Reset(heartbeat)
		case <-r.Context().Done():
			return
		case <-s.cfg.Stopping:
			return
		case <-s.done:
			return
		}
	}
}

// enter counts a listener. The first one makes the view be looked after.
func (s *Server) enter() bool {
	v := &s.view
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listeners >= s.cfg.Listeners {
		return false
	}
	if v.listeners++; v.listeners == 1 {
		v.quiet = make(chan struct{})
		quiet := v.quiet
		s.wg.Go(func() { s.tick(quiet) })
	}
	return true
}

func (s *Server) leave() {
	v := &s.view
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listeners--; v.listeners == 0 {
		close(v.quiet)
	}
}

// tick looks from time to time, until nobody listens.
func (s *Server) tick(quiet <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t := time.NewTimer(idleTick)
	defer t.Stop()
	for {
		t.Reset(s.view.pause())
		select {
		case <-t.C:
			s.view.refresh(ctx, time.Now(), 0)
		case <-quiet:
			return
		case <-s.cfg.Stopping:
			return
		case <-s.done:
			return
		}
	}
}
