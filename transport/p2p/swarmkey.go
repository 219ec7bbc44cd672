package p2p

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"
)

// SwarmKey is the secret of a private swarm: hosts with the same one connect to each other, and nobody else gets past the
// first bytes of a connection. The zero SwarmKey is none. It does not print.
type SwarmKey [32]byte

// swarmKeyHead begins a file with a swarm key, in the form that Kubo and go-libp2p read and write.
const swarmKeyHead = "/key/swarm/psk/1.0.0/\n/base16/\n"

// NewSwarmKey returns a fresh one.
func NewSwarmKey() (k SwarmKey) {
	rand.Read(k[:]) // never fails
	return k
}

// ParseSwarmKey reads a file with a swarm key: the line /key/swarm/psk/1.0.0/, then one of /base16/, /base64/ and /bin/, and
// then 32 bytes so encoded.
func ParseSwarmKey(text []byte) (SwarmKey, error) {
	r := bytes.NewReader(text)
	b, err := pnet.DecodeV1PSK(r)
	if err != nil || len(b) != len(SwarmKey{}) {
		return SwarmKey{}, fmt.Errorf("no swarm key (%w); right is one that `dray swarm-key --create` writes, "+
			"which begins with /key/swarm/psk/1.0.0/", err)
	}
	k := SwarmKey(b)
	if k.IsZero() {
		return k, errors.New("a swarm key of zeros, which is none")
	}
	return k, nil
}

// ReadSwarmKey reads the file at path. It returns an error wrapping [fs.ErrNotExist] when there is none, and refuses one that
// others can read.
func ReadSwarmKey(path string) (SwarmKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return SwarmKey{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return SwarmKey{}, err
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return SwarmKey{}, fmt.Errorf("%s has mode %04o, so others can read it; run: chmod 600 %s", path, perm, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return SwarmKey{}, err
	}
	k, err := ParseSwarmKey(text)
	if err != nil {
		return k, fmt.Errorf("%s is %w", path, err)
	}
	return k, nil
}

// CreateSwarmKey writes a fresh key to path, with mode 0600. It returns an error wrapping [fs.ErrExist] when there is a file.
func CreateSwarmKey(path string) (SwarmKey, error) {
	k := NewSwarmKey()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return k, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return k, err
	}
	_, err = f.WriteString(k.Encode())
	if err == nil {
		err = f.Sync()
	}
	return k, errors.Join(err, f.Close())
}

// Encode returns the key as the text of a file. It is the secret itself.
func (k SwarmKey) Encode() string { return swarmKeyHead + hex.EncodeToString(k[:]) + "\n" }

// IsZero reports whether k is none.
func (k SwarmKey) IsZero() bool { return k == SwarmKey{} }

// String returns what tells keys apart without giving them away: the beginning of a hash.
func (k SwarmKey) String() string {
	sum := sha256.Sum256(append([]byte("dray swarm key\x00"), k[:]...))
	return hex.EncodeToString(sum[:8])
}

// GoString is String.
func (k SwarmKey) GoString() string { return k.String() }

// PrivateListen returns what [DefaultListen] does, as far as there are private swarms over it: TCP and WebSocket. QUIC and
// WebTransport have no way to ask for a swarm key.
func PrivateListen() []string {
	var out []string
	for _, a := range DefaultListen() {
		if !strings.Contains(a, "/quic") {
			out = append(out, a)
		}
	}
	return out
}

// private says what a private swarm cannot do with an address to listen on, or nothing.
func (k SwarmKey) private(m ma.Multiaddr) error {
	if !k.IsZero() && (has(m, ma.P_QUIC_V1) || has(m, ma.P_WEBTRANSPORT)) {
		return fmt.Errorf("cannot listen on %s: a private swarm has no QUIC and no WebTransport, which know no swarm keys; "+
			"listen on TCP or WebSocket", m)
	}
	return nil
}
