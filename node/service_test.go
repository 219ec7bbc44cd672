package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"dray"
	"dray/store"
	"dray/transport"
)

// TestService asks a Service of a peer's, and one that it does not have.
func TestService(t *testing.T) {
	net := transport.NewMemory(transport.MemoryConfig{})
	echo := Service{Protocol: "/dray/echo/1", Serve: func(_ context.Context, _ dray.PeerID, s transport.Stream) {
		defer s.Close()
		b, err := io.ReadAll(io.LimitReader(s, 64))
		if err == nil {
			_, err = s.Write(bytes.ToUpper(b))
		}
		if err != nil {
			t.Error(err)
		}
	}}
	start := func(list ...Service) *Node {
		n, err := New(Config{Store: store.NewMem(0), Network: net.NewHost(), Services: list})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	a, b := start(echo), start()
	call := func(p *Node, protocol transport.Protocol) (string, error) {
		s, err := b.Call(t.Context(), transport.Peer{ID: p.Self(), Addrs: p.Addrs()}, protocol)
		if err != nil {
			return "", err
		}
		defer s.Close()
		if _, err := s.Write([]byte("hello")); err != nil {
			return "", err
		}
		if err := s.CloseWrite(); err != nil {
			return "", err
		}
		text, err := io.ReadAll(s)
		return string(text), err
	}
	if got, err := call(a, "/dray/echo/1"); got != "HELLO" || err != nil {
		t.Errorf("the answer is %q, %v", got, err)
	}
	if _, err := call(a, "/dray/other/1"); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("a protocol that nobody serves: %v", err)
	}
	a.Ban(b.Self(), 1<<40, "test")
	if got, err := call(a, "/dray/echo/1"); err == nil {
		t.Errorf("a banned peer was answered %q", got)
	}
}

// TestServiceNeedsAName refuses Services that would be ambiguous.
func TestServiceNeedsAName(t *testing.T) {
	serve := func(context.Context, dray.PeerID, transport.Stream) {}
	for name, list := range map[string][]Service{
		"nameless": {{Serve: serve}},
		"idle":     {{Protocol: "/x/1"}},
		"twice":    {{Protocol: "/x/1", Serve: serve}, {Protocol: "/x/1", Serve: serve}},
		"ours":     {{Protocol: protocols()[0], Serve: serve}},
	} {
		if n, err := New(Config{Store: store.NewMem(0), Services: list}); err == nil {
			n.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
