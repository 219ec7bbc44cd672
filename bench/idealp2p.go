package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"dray"
	"dray/transport"
	"dray/transport/p2p"
)

// idealProtocol is the id of the ideal's streams.
const idealProtocol transport.Protocol = "/dray-bench/ideal/1.0.0"

// serveP2P accepts streams on Dray's libp2p transport until ctx ends.
func serveP2P(ctx context.Context, send func(io.ReadWriter)) error {
	h, err := p2p.New(p2p.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	h.Handle([]transport.Protocol{idealProtocol}, func(_ transport.Conn, st transport.Stream) {
		wg.Go(func() {
			send(st)
			if err := st.Close(); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "ideal-serve:", err)
			}
		})
	})
	if err := printJSON(serving{Peer: h.Self().String(), Addrs: h.Addrs()}); err != nil {
		return err
	}
	<-ctx.Done()
	return h.Close()
}

// fetchP2P receives over several streams of one connection at once and returns the file's size.
func fetchP2P(ctx context.Context, from string, streams int, receive receiver) (int64, error) {
	addr, id, ok := strings.Cut(from, "/p2p/")
	if !ok {
		return 0, fmt.Errorf("address %q names no peer", from)
	}
	peer, err := dray.ParsePeerID(id)
	if err != nil {
		return 0, err
	}
	h, err := p2p.New(p2p.Config{Listen: []string{}})
	if err != nil {
		return 0, err
	}
	conn, err := h.Dial(ctx, peer, []string{addr})
	if err != nil {
		_ = h.Close()
		return 0, err
	}
	n, err := inParallel(streams, func(i int) (int64, error) {
		st, err := conn.Open(ctx, idealProtocol)
		if err != nil {
			return 0, err
		}
		n, err := receive(st, i)
		if err != nil {
			_ = st.Reset()
			return 0, err
		}
		return n, st.Close()
	})
	if closeErr := h.Close(); err == nil {
		err = closeErr
	}
	return n, err
}
