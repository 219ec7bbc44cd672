package p2p

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

// errSeen ends a handshake of which enough was seen.
var errSeen = errors.New("enough was seen")

// TestSecureWebSocketNamesItsHost: an address with a name connects to the socket that it says, and asks there for the certificate
// of the name.
func TestSecureWebSocketNamesItsHost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := make(chan string, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s := tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				names <- h.ServerName
				return nil, errSeen
			}})
			_ = s.HandshakeContext(t.Context())
			_ = c.Close()
		}
	})
	defer wg.Wait()
	defer l.Close()
	var count tally
	w := &webSockets{tally: &count}
	for _, end := range []string{"tls/sni/films.example/ws", "tls/sni/more.example/ws"} {
		to, err := ma.NewMultiaddr(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/%s", l.Addr().(*net.TCPAddr).Port, end))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := w.dial(soon(t), to); err == nil {
			t.Errorf("%v is a WebSocket", c.RemoteMultiaddr())
		}
		if name, err := to.ValueForProtocol(ma.P_SNI); err != nil || name != <-names {
			t.Errorf("%v: another name was asked for, %v", to, err)
		}
	}
	if s := count.sum(); s.TCPOut == 0 || s.TCPIn == 0 {
		t.Errorf("%+v of two handshakes", s)
	}
}
