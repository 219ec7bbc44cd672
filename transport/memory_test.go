package transport_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"dray/transport"
	"dray/transport/transporttest"
)

// TestMemoryTakesTheTimeOfTheLink moves 8 MiB over 25 ms and 100 MB/s: a round trip to connect, one way for the header,
// and the bytes at full rate, because the window covers the link.
func TestMemoryTakesTheTimeOfTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		m := transport.NewMemory(transport.MemoryConfig{Latency: 25 * time.Millisecond, Bandwidth: 100e6})
		a, b := m.NewHost(), m.NewHost()
		defer a.Close()
		defer b.Close()
		start := time.Now()
		got := make(chan time.Duration, 1)
		b.Handle([]transport.Protocol{"/x"}, func(_ transport.Conn, s transport.Stream) {
			n, err := io.Copy(io.Discard, s)
			if n != size || err != nil {
				t.Errorf("copied %d bytes, %v", n, err)
			}
			got <- time.Since(start)
		})
		c, err := a.Dial(context.Background(), b.Self(), b.Addrs())
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 50*time.Millisecond || d > 51*time.Millisecond {
			t.Errorf("dialling took %v", d)
		}
		s, err := c.Open(context.Background(), "/x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		want := 75*time.Millisecond + time.Duration(size/100e6*float64(time.Second))
		if d := <-got; d < want || d > want+time.Millisecond {
			t.Errorf("took %v, the link needs %v", d, want)
		}
	})
}

func TestMemory(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Factory {
		m := transport.NewMemory(transport.MemoryConfig{})
		return func(t *testing.T) transport.Network { return m.NewHost() }
	})
}

func TestMemoryWithDelay(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Factory {
		m := transport.NewMemory(transport.MemoryConfig{Latency: time.Millisecond, Bandwidth: 400e6})
		return func(t *testing.T) transport.Network { return m.NewHost() }
	})
}
