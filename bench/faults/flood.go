package faults

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	coretransport "github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"dray/wire"
)

const (
	// floodAtOnce is how many strangers try to be connected at one time: more than a Dray takes.
	floodAtOnce = 1500
	// floodStay is how long a stranger stays when it is let.
	floodStay = 5 * time.Second
	// floodAt is how much of the file has come when the flood begins.
	floodAt = 0.1
	// floodPriority is the flood's priority on the processor, the lowest there is: strangers compute elsewhere.
	floodPriority = 19
	// floodMemory bounds what the holder may have resident under the flood, in bytes.
	floodMemory = 200 << 20
	// floodEnds is how long the flood may go on after the member has the file.
	floodEnds = 90 * time.Second
	// strangers is how many there are; quickStrangers in a quick bench.
	strangers, quickStrangers = 10_000, 1_000
)

// flooded is the line of the flood's output.
type flooded struct {
	// Met is how many strangers were connected so far, Asked how many of them could say what they want, and Tried how many
	// came.
	Met   int64 `json:"met"`
	Asked int64 `json:"asked"`
	Tried int64 `json:"tried"`
}

// runFlood sends -n strangers to -addr, each with an identity of its own. Each follows -root, asks for it and everything
// below, and reads nothing.
func runFlood(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("flood", flag.ContinueOnError)
	addr := fs.String("addr", "", "multiaddr of the holder, with its peer id")
	text := fs.String("root", "", "what to ask for")
	n := fs.Int("n", strangers, "how many strangers")
	if err := fs.Parse(args); err != nil {
		return err
	}
	root, err := cid.Decode(*text)
	if err != nil {
		return err
	}
	to, err := peer.AddrInfoFromString(*addr)
	if err != nil {
		return err
	}
	f := &flood{to: *to, hello: hello(root)}
	if f.hello == nil {
		return errors.New("nothing to say")
	}
	var wg sync.WaitGroup
	places := make(chan struct{}, floodAtOnce)
	for range *n {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		f.tried.Add(1)
		wg.Go(func() {
			f.stranger(ctx)
			<-places
		})
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(flooded{Met: f.met.Load(), Asked: f.asked.Load(), Tried: f.tried.Load()})
}

// flood is the process.
type flood struct {
	to                peer.AddrInfo
	hello             []byte
	tried, met, asked atomic.Int64
}

// hello is what every stranger says: it gives all credit, follows the root, wants it, and asks for the graph below it with
// as many leaves as may be pushed.
func hello(root cid.Cid) []byte {
	m := wire.Message{
		Full: true, Seq: 1, Credit: plenty,
		Follows: []wire.Follow{{Feed: 1, Root: root}},
		Wants:   []wire.Entry{{CID: root, SendDontHave: true, Priority: math.MaxInt32}},
		Walks:   []wire.Walk{{ID: 1, Root: root, Bytes: 64 << 20, Leaves: true, Push: 64 << 20}},
	}
	raw, err := wire.AppendMessage(nil, wire.Swap1, &m)
	if err != nil {
		return nil
	}
	return raw
}

// stranger comes, asks, stays a while and goes. Whatever breaks ends it.
func (f *flood) stranger(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*floodStay)
	defer cancel()
	c, err := dialAsNobody(ctx, f.to)
	if err != nil {
		return
	}
	defer c.Close()
	f.met.Add(1)
	s, err := c.OpenStream(ctx)
	if err != nil {
		return
	}
	_ = s.SetDeadline(time.Now().Add(floodStay))
	if multistream.SelectProtoOrFail(wire.ProtocolSwap1, s) != nil {
		return
	}
	if _, err := s.Write(f.hello); err != nil {
		return
	}
	f.asked.Add(1)
	// Nothing is ever written on this stream, so that reading ends when the holder has had enough.
	_, _ = io.Copy(io.Discard, s)
}

// dialAsNobody connects with a new identity.
func dialAsNobody(ctx context.Context, to peer.AddrInfo) (coretransport.CapableConn, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	tls, err := libp2ptls.New(libp2ptls.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{tls}, muxers, nil, &network.NullResourceManager{}, nil)
	if err != nil {
		return nil, err
	}
	t, err := tcp.NewTCPTransport(up, &network.NullResourceManager{}, nil, tcp.DisableReuseport())
	if err != nil {
		return nil, err
	}
	if len(to.Addrs) == 0 {
		return nil, errors.New("no address")
	}
	return t.Dial(ctx, to.Addrs[0].Decapsulate(ma.StringCast("/p2p/"+to.ID.String())), to.ID)
}

// underFlood has strangers flood the holder while the getter is at it, and says how much memory that took.
func underFlood(ctx context.Context, s *scene) error {
	h := s.holders[0]
	side, err := newProxy(&line{rate: 10e9}, h.dial)
	if err != nil {
		return err
	}
	defer side.close()
	return floodOf(ctx, s, h.addr(side))
}

// besideFlood has strangers flood somebody who accepts and hangs up, while the getter is at it: what a machine that has both
// the holder and the strangers loses to the strangers' own work.
func besideFlood(ctx context.Context, s *scene) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	defer wg.Wait()
	defer l.Close()
	h := s.holders[0]
	side, err := newProxy(&line{rate: 10e9}, func(context.Context) (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) })
	if err != nil {
		return err
	}
	defer side.close()
	return floodOf(ctx, s, h.addr(side))
}

// floodOf has strangers come to an address while the getter is at it.
func floodOf(ctx context.Context, s *scene, addr string) error {
	h, n := s.holders[0], strangers
	if s.b.quick {
		n = quickStrangers
	}
	over := make(chan flooded, 1)
	what := spec{path: s.b.self, args: []string{
		"role=flood", "-addr", addr, "-root", s.g.root, "-n", fmt.Sprint(n),
	}}
	if err := s.startGetter(); err != nil {
		return err
	}
	if err := s.share(ctx, floodAt); err != nil {
		return err
	}
	began := time.Now()
	strike, err := s.b.starter.start(what, nil, nil, func(line []byte) {
		var f flooded
		if json.Unmarshal(line, &f) == nil {
			over <- f
		}
	})
	if err != nil {
		return err
	}
	defer strike.stop()
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, strike.pid, floodPriority); err != nil {
		return err
	}
	err = s.waitGetter(ctx)
	s.ended = time.Now()
	if err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, floodEnds)
	defer cancel()
	select {
	case <-strike.done: // its last line was read before
	case <-patience.Done():
		return errors.New("the flood did not end")
	}
	select {
	case f := <-over:
		s.peak = peakOf(h.current().pid)
		s.note = fmt.Sprintf("%d came in %.0f s, %d of them got in, %d asked; peak %.0f MiB", f.Tried,
			time.Since(began).Seconds(), f.Met, f.Asked, mib(s.peak))
	default:
		return fmt.Errorf("the flood ended: %v: %s", strike.err, &strike.stderr)
	}
	return nil
}
