package p2p

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/salsa20"

	"dray"
)

// salted returns what a host with a swarm key sends first: a nonce, and text encrypted with the key.
func salted(key SwarmKey, nonce []byte, text string) []byte {
	out := make([]byte, len(text))
	salsa20.XORKeyStream(out, []byte(text), nonce, (*[32]byte)(&key))
	return append(append([]byte(nil), nonce...), out...)
}

// waits returns a nonce with which a host that has mine takes a text encrypted with its for a line that is longer than all that a
// host says before it gets an answer.
func waits(t *testing.T, mine, its SwarmKey, text string) []byte {
	nonce := make([]byte, nonceBytes)
	for n := range uint64(1 << 20) {
		binary.LittleEndian.PutUint64(nonce, n)
		said := salted(its, nonce, text)
		if line := said[0]; mine.IsZero() && line >= 100 && line < 128 {
			return said
		}
		if line := salted(mine, nonce, string(said[nonceBytes:]))[nonceBytes]; !mine.IsZero() && line >= 100 && line < 128 {
			return said
		}
	}
	t.Fatal("there is no such nonce")
	return nil
}

func TestOpening(t *testing.T) {
	mine, its := NewSwarmKey(), NewSwarmKey()
	nonce := []byte("24 bytes of any and more")
	const more = "\x0b/tls/1.0.0\n"
	for _, row := range []struct {
		name string
		key  SwarmKey
		said string
		want error
		by   int // at how many bytes it is known
	}{
		{"both in the open", SwarmKey{}, openingHead + more, nil, len(openingHead)},
		{"a key, and there is none here", SwarmKey{}, "N" + string(salted(its, nonce, openingHead)[1:]), errNotInTheOpen, 1},
		{"a nonce that begins well", SwarmKey{}, "\x13/mult" + string(nonce), errNotInTheOpen, 7},
		{"nothing of libp2p's", SwarmKey{}, "HTTP/1.1 400 Bad Request\r\n\r\n", errNotInTheOpen, 1},
		{"busy", SwarmKey{}, openingBusy, errBusy, len(openingBusy)},
		{"nearly busy", SwarmKey{}, "\x11/dray/busy/2.0.0\n", errNotInTheOpen, len("\x11/dray/busy/2")},
		{"the same key", mine, string(salted(mine, nonce, openingHead+more)), nil, nonceBytes + len(openingHead)},
		{"another key", mine, string(salted(its, nonce, openingHead+more)), errOtherKey, nonceBytes + 1},
		{"no key", mine, openingHead, errInNoSwarm, len(openingHead)},
		{"busy, and there is a key here", mine, openingBusy, errBusy, len(openingBusy)},
		{"nothing of libp2p's, and there is a key here", mine, strings.Repeat("SSH-2.0 ", 9), errOtherKey, nonceBytes + 1},
	} {
		for _, size := range []int{1, 2, 3, 7, nonceBytes - 1, nonceBytes, len(row.said)} {
			o := opening{key: row.key}
			known, rest := 0, row.said
			var err error
			for len(rest) > 0 && known == 0 {
				n := min(size, len(rest))
				if err = o.see([]byte(rest[:n])); err != nil || o.well {
					known = len(row.said) - len(rest) + n
				}
				rest = rest[n:]
			}
			// The first byte of noise may happen to be right.
			if late := known - row.by; err != row.want || late < 0 || late > size+2 {
				t.Errorf("%s, %d bytes at a time: %v after %d bytes, want %v after %d", row.name, size, err, known, row.want, row.by)
			}
			if again := o.see([]byte("what follows")); again != err {
				t.Errorf("%s: %v, and then %v", row.name, err, again)
			}
		}
	}
}

// foreigner is a host of another swarm than this one's, and how it begins.
type foreigner struct {
	name string
	key  SwarmKey // of this host
	said []byte
	want []string // is said of it
}

// foreigners begin, if they can, as what looks like the beginning of something long.
func foreigners(t *testing.T) []foreigner {
	mine, its := NewSwarmKey(), NewSwarmKey()
	return []foreigner{
		{"no key here", SwarmKey{}, waits(t, SwarmKey{}, its, openingHead), []string{errNotInTheOpen.Error(), "may be in a private swarm"}},
		{"another key", mine, waits(t, mine, its, openingHead), []string{errOtherKey.Error(), "must have the same swarm key"}},
		{"no key there", mine, []byte(openingHead), []string{errInNoSwarm.Error(), "must have the same swarm key"}},
	}
}

// TestForeignListener: whoever dials a host of another swarm is told so at once, whatever that one makes of it, and even when what it
// says looks like the beginning of something long.
func TestForeignListener(t *testing.T) {
	for _, row := range foreigners(t) {
		t.Run(row.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			h := bulkHost(t, Config{Listen: []string{}, SwarmKey: row.key})
			other := bulkHost(t, Config{Listen: []string{}})
			line := tap{Listener: l}
			line.wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					line.wg.Go(func() { // says its part and listens
						_, _ = c.Write(row.said)
						_, _ = io.Copy(io.Discard, c)
						_ = c.Close()
					})
				}
			})
			_, err = h.Dial(soon(t), other.Self(), []string{line.multiaddr()})
			if !errors.Is(err, dray.ErrUnreachable) {
				t.Errorf("dialled: %v", err)
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, does not say %q", err, want)
				}
			}
			_ = l.Close()
			line.wg.Wait()
		})
	}
}

// TestForeignDialler: a host hangs up on whoever begins as another swarm does, and does not wait for what looks like a long line.
func TestForeignDialler(t *testing.T) {
	for _, row := range foreigners(t) {
		t.Run(row.name, func(t *testing.T) {
			h := bulkHost(t, Config{SwarmKey: row.key})
			c, err := net.Dial("tcp", hostPort(t, h))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(row.said); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(dialTimeout / 2))
			if _, err := io.Copy(io.Discard, c); isTimeout(err) {
				t.Error("it still listens")
			}
		})
	}
}
