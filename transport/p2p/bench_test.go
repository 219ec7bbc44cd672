package p2p_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"dray/transport"
	"dray/transport/p2p"
)

// BenchmarkStream moves bytes one way over loopback, both sides in this process, and reports the processor time of both
// together.
func BenchmarkStream(b *testing.B) {
	for _, row := range []streamBench{
		{name: "TCP+TLS", listen: tcpAddr},
		{name: "QUIC", listen: quicAddr},
		{name: "bulk encrypted", listen: tcpAddr, plane: "encrypted"},
		{name: "bulk authenticated", listen: tcpAddr, plane: "authenticated"},
	} {
		for _, write := range []int{256 << 10, 1 << 20} {
			for _, streams := range []int{1, 2, 4} {
				b.Run(fmt.Sprintf("%s/%dKiB/%d", row.name, write>>10, streams), func(b *testing.B) {
					row.run(b, write, streams)
				})
			}
		}
	}
}

// streamBench is one way for streams to go.
type streamBench struct {
	name, listen string
	plane        string // of bulk streams, or "" for ordinary ones
}

func (row streamBench) open(c transport.Conn) (transport.Stream, error) {
	if row.plane == "" {
		return c.Open(context.Background(), "/sink")
	}
	return c.(transport.Bulker).OpenBulk(context.Background(), "/sink")
}

func (row streamBench) run(b *testing.B, write, streams int) {
	var wg sync.WaitGroup
	receiver, err := p2p.New(p2p.Config{Listen: []string{row.listen}, DataPlane: row.plane})
	if err != nil {
		b.Fatal(err)
	}
	defer receiver.Close()
	sender, err := p2p.New(p2p.Config{Listen: []string{}, DataPlane: row.plane})
	if err != nil {
		b.Fatal(err)
	}
	defer sender.Close()
	done := make(chan int64, streams)
	receiver.Handle([]transport.Protocol{"/sink"}, func(_ transport.Conn, s transport.Stream) {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, 256<<10))
		done <- n
		_ = s.Close()
	})
	c, err := sender.Dial(context.Background(), receiver.Self(), receiver.Addrs())
	if err != nil {
		b.Fatal(err)
	}
	all := make([]transport.Stream, streams)
	for i := range all {
		if all[i], err = row.open(c); err != nil {
			b.Fatal(err)
		}
		if _, err := all[i].Write([]byte("x")); err != nil {
			b.Fatal(err)
		}
	}
	buf := make([]byte, write)
	b.SetBytes(int64(write))
	begin := cpu(b)
	b.ResetTimer()
	for i, s := range all {
		n := b.N / streams
		if i < b.N%streams {
			n++
		}
		wg.Go(func() {
			for range n {
				if _, err := s.Write(buf); err != nil {
					b.Error(err)
					return
				}
			}
			_ = s.CloseWrite()
		})
	}
	var total int64
	for range all {
		total += <-done
	}
	b.StopTimer()
	wg.Wait()
	b.ReportMetric((cpu(b)-begin).Seconds()/float64(total)*(1<<30), "cpu-s/GiB")
	if want := int64(b.N)*int64(write) + int64(streams); total != want {
		b.Fatalf("got %d bytes, want %d", total, want)
	}
}

// BenchmarkTLS is what a plain TLS 1.3 socket does.
func BenchmarkTLS(b *testing.B) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	config := &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify: true, // it is the cipher that is measured
		MinVersion:         tls.VersionTLS13,
	}
	for _, write := range []int{256 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", write>>10), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			var wg sync.WaitGroup
			wg.Go(func() {
				raw, err := l.Accept()
				if err != nil {
					b.Error(err)
					return
				}
				s := tls.Server(raw, config)
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, 256<<10))
				s.Close()
			})
			c, err := tls.Dial("tcp", l.Addr().String(), config)
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, write)
			b.SetBytes(int64(write))
			begin := cpu(b)
			b.ResetTimer()
			for range b.N {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			c.Close()
			wg.Wait()
			b.StopTimer()
			b.ReportMetric((cpu(b)-begin).Seconds()/float64(b.N*write)*(1<<30), "cpu-s/GiB")
		})
	}
}

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
