package p2p_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/transport"
	"dray/transport/p2p"
)

const wsAddr = "/ip4/127.0.0.1/tcp/0/ws"

// Hosts with the same swarm key connect, over TCP and over WebSocket, and hosts with another or none do not, and say why.
func TestSwarmKey(t *testing.T) {
	key, other := p2p.NewSwarmKey(), p2p.NewSwarmKey()
	for _, addr := range []string{tcpAddr, wsAddr} {
		inside := start(t, p2p.Config{Listen: []string{addr}, SwarmKey: key})
		open := start(t, p2p.Config{Listen: []string{addr}})
		fellow := start(t, p2p.Config{Listen: []string{}, SwarmKey: key})
		c := dial(t, fellow, inside.Self(), inside.Addrs())
		s, err := c.Open(context.Background(), "/echo")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(s, b); err != nil || string(b) != "hello" {
			t.Fatalf("read %q: %v", b, err)
		}
		s.Close()
		if bulk, ok := c.(transport.Bulker); ok {
			if _, err := bulk.OpenBulk(context.Background(), "/echo"); err == nil {
				t.Error("there is a bulk connection, which knows no swarm key")
			}
		}
		for _, x := range []struct {
			name     string
			from, to *p2p.Host
			says     string
		}{
			{"another key", start(t, p2p.Config{Listen: []string{}, SwarmKey: other}), inside, "must have the same swarm key"},
			{"no key", dialer(t), inside, "may be in a private swarm"},
			{"out of the swarm", fellow, open, "must have the same swarm key"},
		} {
			for range 8 { // what one end makes of the other's bytes is up to chance
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				_, err := x.from.Dial(ctx, x.to.Self(), x.to.Addrs())
				cancel()
				if !errors.Is(err, dray.ErrUnreachable) || !strings.Contains(err.Error(), x.says) {
					t.Fatalf("%s over %s: %v", x.name, addr, err)
				}
				if strings.Contains(err.Error(), "deadline") {
					t.Fatalf("%s over %s, after waiting in vain: %v", x.name, addr, err)
				}
			}
		}
	}
}

func TestSwarmKeyListen(t *testing.T) {
	_, err := p2p.New(p2p.Config{Listen: []string{quicAddr}, SwarmKey: p2p.NewSwarmKey()})
	if err == nil || !strings.Contains(err.Error(), "a private swarm has no QUIC") {
		t.Errorf("listening on QUIC: %v", err)
	}
	for _, a := range start(t, p2p.Config{SwarmKey: p2p.NewSwarmKey()}).Addrs() {
		if strings.Contains(a, "quic") {
			t.Errorf("it listens on %s", a)
		}
	}
}

func TestSwarmKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "swarm.key")
	if _, err := p2p.ReadSwarmKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	k, err := p2p.CreateSwarmKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p2p.CreateSwarmKey(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	if got, err := p2p.ReadSwarmKey(path); err != nil || got != k {
		t.Errorf("read back: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p2p.ReadSwarmKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can read: %v", err)
	}
	const head = "/key/swarm/psk/1.0.0/\n"
	for name, text := range map[string]string{
		"hexadecimal": head + "/base16/\n" + strings.Repeat("ab", 32),
		"windows":     head[:len(head)-1] + "\r\n/base16/\r\n" + strings.Repeat("ab", 32),
		"base64":      head + "/base64/\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=",
		"binary":      head + "/bin/\n" + strings.Repeat("\xab", 32),
	} {
		if k, err := p2p.ParseSwarmKey([]byte(text)); err != nil || k[0] != 0xab || k[31] != 0xab {
			t.Errorf("%s: %v %v", name, k, err)
		}
	}
	for _, text := range []string{
		"", head, head + "/base16/\n", head + "/base16/\nabab", head + "/base17/\n" + strings.Repeat("ab", 32), "secret",
		head + "/base16/\n" + strings.Repeat("00", 32),
	} {
		if _, err := p2p.ParseSwarmKey([]byte(text)); err == nil {
			t.Errorf("%q is a swarm key", text)
		}
	}
}

func FuzzSwarmKey(f *testing.F) {
	f.Add([]byte(p2p.NewSwarmKey().Encode()))
	f.Add([]byte("/key/swarm/psk/1.0.0/\n/bin/\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := p2p.ParseSwarmKey(text)
		if err != nil {
			return
		}
		if again, err := p2p.ParseSwarmKey([]byte(k.Encode())); err != nil || again != k {
			t.Fatalf("written as %q: %v", k.Encode(), err)
		}
	})
}
