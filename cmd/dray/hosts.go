package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"dray"
	"dray/settings"
	"dray/transport"
)

// Daemons that share a name in DNS, such as the pods of a service, find each other by it: each address that the name stands for is
// asked over HTTP who is there. The answer is a hint as any other's; whoever is dialled then has to prove its id.

// identityPath is where a daemon says who it is and where peers reach it.
const identityPath = "/dray/id"

const (
	hostsEvery  = 30 * time.Second
	hostsFirst  = 2 * time.Second // as often as this in the first minute, in which all of them start
	hostTimeout = 5 * time.Second
	maxIdentity = 64 << 10
	maxHosts    = 256 // addresses of one name
)

// openIdentity says who this is.
func openIdentity(_ context.Context, h *house, _ settings.Settings) (opened, error) {
	say := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(append(encode(h.identity()), '\n')) // the client may be gone
	}
	return opened{routes: []route{{identityPath, http.HandlerFunc(say)}}}, nil
}

// hosts is a [transport.Discoverer] for names in DNS, each HOST:PORT.
type hosts struct {
	names  []string
	token  string
	client *http.Client
	lookup func(ctx context.Context, host string) ([]string, error)
	self   dray.PeerID
}

func newHosts(names []string, token string, self dray.PeerID) *hosts {
	return &hosts{
		names: names, token: token, self: self,
		client: &http.Client{Timeout: hostTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // the token is for those whom the name stands for
		}},
		lookup: net.DefaultResolver.LookupHost,
	}
}

// Discover implements [transport.Discoverer].
func (d *hosts) Discover(ctx context.Context, found func(transport.Peer)) error {
	began := time.Now()
	for {
		d.ask(ctx, found)
		every := hostsEvery
		if time.Since(began) < time.Minute {
			every = hostsFirst
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}

// ask asks everybody once, all at the same time.
func (d *hosts) ask(ctx context.Context, found func(transport.Peer)) {
	var (
		wg sync.WaitGroup
		mu sync.Mutex // found is called by one at a time
	)
	for _, name := range d.names {
		host, port, err := net.SplitHostPort(name)
		if err != nil {
			continue // the settings have been checked
		}
		addrs, err := d.lookup(ctx, host)
		if err != nil {
			continue // it may have nobody yet
		}
		for _, a := range addrs[:min(len(addrs), maxHosts)] {
			wg.Go(func() {
				p, err := d.identityOf(ctx, net.JoinHostPort(a, port))
				if err != nil || p.ID == d.self {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				found(p)
			})
		}
	}
	wg.Wait()
}

// identityOf asks who is at an address.
func (d *hosts) identityOf(ctx context.Context, at string) (p transport.Peer, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+identityPath, nil)
	if err != nil {
		return p, err
	}
	if d.token != "" {
		r.Header.Set("Authorization", "Bearer "+d.token)
	}
	resp, err := d.client.Do(r)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return p, fmt.Errorf("%s: %s", at, resp.Status)
	}
	var id identity
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxIdentity)).Decode(&id); err != nil {
		return p, err
	}
	if p.ID, err = dray.ParsePeerID(id.Peer); err != nil {
		return p, err
	}
	for _, a := range id.Addrs {
		if !strings.HasPrefix(a, "/ip4/127.") && !strings.HasPrefix(a, "/ip6/::1/") || strings.HasPrefix(at, "127.") {
			p.Addrs = append(p.Addrs, a)
		}
	}
	return p, nil
}

// together is several Discoverers as one.
type together []transport.Discoverer

// Discover implements [transport.Discoverer].
func (list together) Discover(ctx context.Context, found func(transport.Peer)) error {
	var (
		wg sync.WaitGroup
		mu sync.Mutex // found is called by one at a time
	)
	errs := make([]error, len(list))
	for i, d := range list {
		wg.Go(func() {
			errs[i] = d.Discover(ctx, func(p transport.Peer) {
				mu.Lock()
				defer mu.Unlock()
				found(p)
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
