package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dray/settings"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, next: 1}
	_, a.cert, a.key = a.sign("authority")
	return a
}

// sign makes a certificate, as TLS uses it.
func (a *authority) sign(name string) (tls.Certificate, *x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.next++
	about := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IsCA: a.cert == nil,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		about.KeyUsage, parent, signer = x509.KeyUsageCertSign, about, key
	}
	der, err := x509.CreateCertificate(rand.Reader, about, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, cert, key
}

// write writes a certificate and its key as files.
func (a *authority) write(dir, name string) (cert, key string) {
	a.t.Helper()
	pair, _, private := a.sign(name)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

// TestMutualTLS: with authorities of clients, those come in who show a certificate of theirs; with a token as well, one of both
// is enough. It speaks HTTP/2, and may listen beyond loopback.
func TestMutualTLS(t *testing.T) {
	dir, ours, others := t.TempDir(), newAuthority(t), newAuthority(t)
	cert, key := ours.write(dir, "server")
	ca := filepath.Join(dir, "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	member, _, _ := ours.sign("member")
	stranger, _, _ := others.sign("stranger")
	ask := func(url, token string, certs ...tls.Certificate) (int, string) {
		c := &tls.Config{RootCAs: roots}
		if len(certs) > 0 { // also to those who do not ask for such a one
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certs[0], nil }
		}
		tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		a, err := tr.RoundTrip(r)
		if err != nil {
			return 0, ""
		}
		defer a.Body.Close()
		_, _ = io.Copy(io.Discard, a.Body)
		return a.StatusCode, a.Proto
	}
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(testToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, token, given string
		certs              []tls.Certificate
		want               int // 0 is no answer
	}{
		{"mutual", "", "", []tls.Certificate{member}, 200},
		{"mutual, none", "", "", nil, 0},
		{"mutual, of others", "", "", []tls.Certificate{stranger}, 0},
		{"both", tokenFile, "", []tls.Certificate{member}, 200},
		{"both, token", tokenFile, testToken, nil, 200},
		{"both, none", tokenFile, "", nil, 401},
		{"both, of others", tokenFile, testToken, []tls.Certificate{stranger}, 0},
	} {
		w, _ := httpOn(t, func(s *settings.HTTP) {
			s.Listen = "0.0.0.0:0"
			s.Cert, s.Key, s.ClientCA, s.TokenFile = cert, key, ca, row.token
		}, frontEcho)
		_, port, err := net.SplitHostPort(w.addr)
		if err != nil {
			t.Fatal(err)
		}
		code, proto := ask("https://127.0.0.1:"+port+"/x", row.given, row.certs...)
		if code != row.want || code != 0 && proto != "HTTP/2.0" {
			t.Errorf("%s: %d over %q, want %d", row.name, code, proto, row.want)
		}
		if code, _ := ask("https://127.0.0.1:"+port+profilePath, row.given, row.certs...); code != row.want {
			t.Errorf("%s: profiles: %d, want %d", row.name, code, row.want)
		}
	}
}

// TestRenewal: a certificate whose files change is the new one for new connections, and half a renewal changes nothing.
func TestRenewal(t *testing.T) {
	dir, a := t.TempDir(), newAuthority(t)
	cert, key := a.write(dir, "server")
	p, err := loadPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	shown := func() []byte {
		t.Helper()
		p.looked = time.Time{} // as if it were long ago
		c, err := p.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Certificate[0]
	}
	first := shown()
	newCert, newKey := a.write(t.TempDir(), "server")
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(newCert, cert)
	if !bytes.Equal(shown(), first) {
		t.Error("half a renewal is used")
	}
	move(newKey, key)
	if bytes.Equal(shown(), first) {
		t.Error("a renewal is not used")
	}
}

// TestSettingsOfOthers: files that are not what they should be are named, with the setting.
func TestSettingsOfOthers(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := newAuthority(t).write(dir, "server")
	for want, s := range map[string]settings.HTTP{
		"http.token_file: open ":                              {TokenFile: filepath.Join(dir, "none")},
		"http.token_file: the token in " + empty:              {TokenFile: "empty"},
		"http.cert and http.key: ":                            {Cert: empty, Key: key},
		"http.client_ca: there is no certificate in " + empty: {Cert: cert, Key: key, ClientCA: empty},
	} {
		_, _, err := openGuard(dir, &s)
		if err == nil || !bytes.HasPrefix([]byte(err.Error()), []byte(want)) {
			t.Errorf("%+v: %v, want %s", s, err, want)
		}
	}
}
