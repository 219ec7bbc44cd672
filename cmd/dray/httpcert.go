package main

import (
	"crypto/tls"
	"sync"
	"time"
)

// certLook is how often files of a certificate are looked at, at most.
const certLook = 10 * time.Second

// pair is the server's certificate. Its files are read again when they have changed, so that one can be renewed while the
// daemon runs; while they make no sense, the certificate of before is used. It is safe for concurrent use.
type pair struct {
	cert, key string

	mu     sync.Mutex
	now    *tls.Certificate
	stamps [2]stamp
	looked time.Time
}

func loadPair(cert, key string) (*pair, error) {
	p := &pair{cert: cert, key: key}
	return p, p.load()
}

// load reads the files.
func (p *pair) load() error {
	stamps := [2]stamp{stampOf(p.cert), stampOf(p.key)}
	c, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return err
	}
	p.now, p.stamps = &c, stamps
	return nil
}

// get is what TLS calls for each connection.
func (p *pair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.looked) > certLook {
		p.looked = time.Now()
		if p.stamps != [2]stamp{stampOf(p.cert), stampOf(p.key)} {
			_ = p.load() // half of a renewal: the next look sees the other half
		}
	}
	return p.now, nil
}
