package p2p

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"dray"
)

// Key is a host's identity, an Ed25519 private key. The zero value is no key. Keys may be copied and shared.
type Key struct {
	priv crypto.PrivKey
}

// NewKey makes a fresh identity from the operating system's randomness.
func NewKey() (Key, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, err
	}
	return keyOf(priv)
}

func keyOf(priv ed25519.PrivateKey) (Key, error) {
	p, err := crypto.UnmarshalEd25519PrivateKey(priv)
	return Key{p}, err
}

// ID returns the id of the host with this key.
func (k Key) ID() (dray.PeerID, error) {
	if k.priv == nil {
		return "", errors.New("no key")
	}
	id, err := peer.IDFromPrivateKey(k.priv)
	return dray.PeerID(id), err
}

// LoadKey reads the key in the file at path (PEM, PKCS #8). If there is no such file it makes a key and writes it there
// with mode 0600, so that the file either has the whole key or does not exist, and two processes that do so at once end up
// with the same key. A file that others than its owner may read or write is refused: whoever has read it can be this host.
func LoadKey(path string) (Key, error) {
	fail := func(err error) (Key, error) { return Key{}, &dray.Error{Op: "load identity key", Err: err} }
	k, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createKey(path); err == nil || errors.Is(err, fs.ErrExist) {
			k, err = readKey(path)
		}
	}
	if err != nil {
		return fail(err)
	}
	return k, nil
}

func readKey(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, err
	}
	if !info.Mode().IsRegular() {
		return Key{}, fmt.Errorf("%s is not a file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return Key{}, fmt.Errorf("%s has mode %04o, so others can read or change it; run: chmod 600 %s", path, perm, path)
	}
	data := make([]byte, 4096)
	n, err := f.Read(data)
	if err != nil && n == 0 {
		return Key{}, fmt.Errorf("%s is empty or cannot be read (%w); restore it, or remove it to get a new identity", path, err)
	}
	block, _ := pem.Decode(data[:n])
	if block == nil || block.Type != "PRIVATE KEY" {
		return Key{}, fmt.Errorf("%s is not a PEM private key", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	priv, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("%s holds a %T, not an Ed25519 key", path, parsed)
	}
	return keyOf(priv)
}

// createKey writes a new key under a name that nobody else uses and then gives it its real name by a hard link, which
// fails with [fs.ErrExist] when somebody was faster.
func createKey(path string) (err error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".key-*") // O_EXCL, 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// No hard links here: reserve the name, then replace the reservation by the whole file.
	g, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	g.Close()
	return os.Rename(f.Name(), path)
}

// Sign returns the key's signature of a text, which [Verify] checks.
func (k Key) Sign(text []byte) ([]byte, error) {
	if k.priv == nil {
		return nil, errors.New("no key")
	}
	return k.priv.Sign(text)
}

// Verify says why a signature of a text is not that of the key of a peer. The id must hold the key, as those of Ed25519 do.
func Verify(id dray.PeerID, text, signature []byte) error {
	key, err := peer.ID(id).ExtractPublicKey()
	if err != nil {
		return fmt.Errorf("the id of %v does not hold its key: %w", id, err)
	}
	if ok, err := key.Verify(text, signature); err != nil || !ok {
		return fmt.Errorf("the signature is not that of %v", id)
	}
	return nil
}
