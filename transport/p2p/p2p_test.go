package p2p_test

import (
	"context"
	"io"
	"testing"

	"dray/transport"
	"dray/transport/p2p"
)

func TestEchoOverEveryListener(t *testing.T) {
	for _, addr := range p2p.LoopbackListen() {
		t.Run(addr, func(t *testing.T) {
			a, err := p2p.New(p2p.Config{Listen: []string{}})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			b, err := p2p.New(p2p.Config{Listen: []string{addr}})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			b.Handle([]transport.Protocol{"/echo"}, func(_ transport.Conn, s transport.Stream) {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			})
			c, err := a.Dial(context.Background(), b.Self(), b.Addrs())
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.Open(context.Background(), "/echo")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(s)
			if string(got) != "hello" || err != nil {
				t.Errorf("echoed %q, %v", got, err)
			}
			t.Logf("%+v", c.Info())
		})
	}
}
