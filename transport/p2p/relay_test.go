package p2p_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// relay is a TCP link with a delay each way, in front of an address.
type relay struct {
	listener net.Listener
	target   string
	delay    time.Duration
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

// startRelay puts a link before the host and port of a multiaddr such as /ip4/127.0.0.1/tcp/4001/p2p/ID, and returns the
// multiaddr that leads through it.
func startRelay(t *testing.T, addr string, delay time.Duration) string {
	t.Helper()
	parts := strings.Split(addr, "/")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: net.JoinHostPort(parts[2], parts[4]), delay: delay}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	parts[4] = fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	return strings.Join(parts, "/")
}

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.target)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		r.wg.Go(func() { r.carry(in, out) })
		r.wg.Go(func() { r.carry(out, in) })
	}
}

// carry moves bytes one way, each piece a delay after it came. The channel bounds what is on the link at about 64 MiB.
func (r *relay) carry(from, to net.Conn) {
	type piece struct {
		b   []byte
		due time.Time
	}
	link := make(chan piece, 1024)
	r.wg.Go(func() {
		for p := range link {
			timer := time.NewTimer(time.Until(p.due))
			<-timer.C
			if _, err := to.Write(p.b); err != nil {
				break
			}
		}
		to.Close()
		for range link {
		}
	})
	defer close(link)
	for {
		b := make([]byte, 64<<10)
		n, err := from.Read(b)
		if n > 0 {
			link <- piece{b[:n], time.Now().Add(r.delay)}
		}
		if err != nil {
			return
		}
	}
}
