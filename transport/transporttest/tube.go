package transporttest

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"dray"
)

// Tube forwards TCP connections to an address. Frozen ones take what fits into the machine's buffers and carry nothing, as
// when the other end has lost its network: nobody is told.
type Tube struct {
	l    net.Listener
	to   string
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[net.Conn]struct{}
	ice  chan struct{} // closed when the connections of now are to carry nothing; replaced then
	done chan struct{}
	left int64         // bytes to be carried until it freezes, if cold is not nil
	cold chan struct{} // closed when that has happened
}

// NewTube returns a Tube to an address such as "127.0.0.1:4001". The test's end closes it.
func NewTube(t testing.TB, to string) *Tube {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &Tube{l: l, to: to, open: make(map[net.Conn]struct{}), ice: make(chan struct{}), done: make(chan struct{})}
	u.wg.Go(u.serve)
	t.Cleanup(u.close)
	return u
}

func (u *Tube) serve() {
	for {
		c, err := u.l.Accept()
		if err != nil {
			return
		}
		d, err := net.Dial("tcp", u.to)
		if err != nil {
			_ = c.Close()
			continue
		}
		u.mu.Lock()
		u.open[c], u.open[d] = struct{}{}, struct{}{}
		ice := u.ice
		u.mu.Unlock()
		u.wg.Go(func() { u.carry(c, d, ice) })
		u.wg.Go(func() { u.carry(d, c, ice) })
	}
}

func (u *Tube) carry(from, to net.Conn, ice chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-ice:
			<-u.done // neither bytes nor the end
			return
		default:
		}
		if n > 0 {
			_, _ = to.Write(buf[:n])
			u.count(n)
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// FreezeAfter freezes the Tube once so many more bytes have passed. The channel is closed then.
func (u *Tube) FreezeAfter(bytes int64) <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.left, u.cold = bytes, make(chan struct{})
	return u.cold
}

func (u *Tube) count(n int) {
	u.mu.Lock()
	u.left -= int64(n)
	cold := u.cold
	if cold != nil && u.left <= 0 {
		u.cold = nil
	} else {
		cold = nil
	}
	u.mu.Unlock()
	if cold != nil {
		u.Freeze()
		close(cold)
	}
}

// Freeze makes the connections of now carry nothing any more. Later ones are carried.
func (u *Tube) Freeze() {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.ice)
	u.ice = make(chan struct{})
}

func (u *Tube) close() {
	_ = u.l.Close()
	close(u.done)
	u.mu.Lock()
	for c := range u.open {
		_ = c.Close()
	}
	u.mu.Unlock()
	u.wg.Wait()
}

// Addr returns the multiaddr at which a peer behind the Tube is reached.
func (u *Tube) Addr(id dray.PeerID) string {
	_, port, _ := strings.Cut(u.l.Addr().String(), ":")
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%s/p2p/%s", port, id)
}
