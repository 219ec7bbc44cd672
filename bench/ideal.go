package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/digest"
)

// The ideals: over TLS; over Dray's libp2p transport; in clear on two connections and on one.
var idealParties = func() []party {
	list := []party{{name: "hash"}} // which only hashes, in rows that add
	for _, v := range []struct {
		name, wire, over string
		conns            int
	}{
		{"ideal", "TLS 1.3, hashed", "tls", 0},
		{"p2p", "libp2p TLS, hashed", "p2p", 0},
		{"clear", "TCP in clear, hashed", "tcp", 2},
		{"clear1", "TCP in clear, hashed", "tcp", 1},
	} {
		address := plainAddress
		if v.over == "p2p" {
			address = peerAddress
		}
		list = append(list, party{
			name: v.name, wire: v.wire, address: address,
			serve: func(s *suite, r row, set *dataset, _ string) (command, error) {
				leaf, hash := idealParameters(r)
				return s.role("ideal-serve", "-leaf", leaf, "-hash", hash, "-over", v.over, set.path), nil
			},
			get: func(s *suite, g getting) command {
				leaf, hash := idealParameters(g.row)
				conns := v.conns
				switch {
				case conns > 0:
				case g.row.net == "link":
					conns = s.linkConns
				default:
					conns = s.conns
				}
				return s.role("ideal-get", "-leaf", leaf, "-hash", hash, "-conns", strconv.Itoa(conns), "-over", v.over,
					"-from", g.addr, "-o", g.out)
			},
		})
	}
	return list
}()

// idealParameters returns the leaf size and hash function of the row's profile, as arguments.
func idealParameters(r row) (leaf, hash string) {
	p, err := lookupProfile(r.profile)
	if err != nil {
		panic(err) // allRows names only profiles that there are
	}
	return strconv.Itoa(p.leaf), p.hash()
}

// idealNote says in the report what the ideal does.
const idealNote = "ideal: TLS 1.3 between two processes, pread of the source, digest and bytes of each leaf on the wire, " +
	"hash of each leaf with Dray's own hash code compared with the digest sent, pwrite to the destination; no protocol, " +
	"no store, no sync; p2p is the same over streams of one connection of Dray's libp2p transport, clear over two bare TCP " +
	"connections and clear1 over one; connections or streams of ideal and p2p:"

// The ideal's protocol: the client sends the index of its connection and how many there are, 4 bytes each; the server
// answers with the file's size, 8 bytes, then sends every leaf whose number has that remainder: its digest, then its
// bytes.
const digestSize = 32

// socketChunk is how much passes between the cipher and the socket in one system call. TLS records are 16 KiB, which
// alone would be a call each.
const socketChunk = 256 << 10

// leafLayout says where the leaves of a file are.
type leafLayout struct {
	size int64
	leaf int
}

func (l leafLayout) count() int { return int((l.size + int64(l.leaf) - 1) / int64(l.leaf)) }

func (l leafLayout) extent(i int) (off int64, n int) {
	off = int64(i) * int64(l.leaf)
	return off, int(min(int64(l.leaf), l.size-off))
}

// digests hashes every leaf of f, on all cores.
func digests(f io.ReaderAt, l leafLayout, code uint64, cores int) ([][digestSize]byte, error) {
	sums := make([][digestSize]byte, l.count())
	errs := make([]error, cores)
	batch := batchLeaves(l.leaf)
	var wg sync.WaitGroup
	for w := range cores {
		wg.Go(func() {
			h := newHasher(code, batch, l.leaf)
			for first := w * batch; first < len(sums) && errs[w] == nil; first += cores * batch {
				n := min(batch, len(sums)-first)
				errs[w] = h.readAndSum(f, l, first, sums[first:first+n])
			}
		})
	}
	wg.Wait()
	return sums, errors.Join(errs...)
}

// batchBytes is how much is hashed together, so that SHA-256 may use lanes where they pay. What is hashed together must
// still be in cache when it is written.
const batchBytes = 4 << 20

// batchLeaves is how many leaves are hashed together: enough to fill the lanes, unless that takes too much cache.
func batchLeaves(leaf int) int { return min(16, max(1, batchBytes/leaf)) }

// hasher hashes leaves with one function, a few at a time. It is not safe for concurrent use.
type hasher struct {
	bufs [][]byte // each a digest and a leaf
	jobs []digest.Job
	refs []*digest.Job
}

func newHasher(code uint64, batch, leaf int) *hasher {
	h := &hasher{jobs: make([]digest.Job, batch)}
	for i := range h.jobs {
		h.jobs[i].Prefix = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: code, MhLength: digestSize}
		h.refs = append(h.refs, &h.jobs[i])
		h.bufs = append(h.bufs, make([]byte, digestSize+leaf))
	}
	return h
}

// sum hashes the first n leaves, each of which data returns, and hands every digest to done.
func (h *hasher) sum(n int, data func(i int) []byte, done func(i int, sum []byte) error) error {
	for i := range n {
		h.jobs[i].Data = data(i)
	}
	digest.SumAll(h.refs[:n])
	for i := range n {
		if err := h.jobs[i].Err; err != nil {
			return err
		}
		c := h.jobs[i].Block.CID().Hash()
		if err := done(i, c[len(c)-digestSize:]); err != nil {
			return err
		}
	}
	return nil
}

func (h *hasher) readAndSum(f io.ReaderAt, l leafLayout, first int, sums [][digestSize]byte) error {
	for i := range sums {
		off, n := l.extent(first + i)
		if _, err := f.ReadAt(h.bufs[i][:n], off); err != nil {
			return err
		}
	}
	data := func(i int) []byte {
		_, n := l.extent(first + i)
		return h.bufs[i][:n]
	}
	return h.sum(len(sums), data, func(i int, sum []byte) error {
		copy(sums[i][:], sum)
		return nil
	})
}

// openDigested opens a file and hashes its leaves.
func openDigested(path string, leaf int, hash string) (f *os.File, layout leafLayout, sums [][digestSize]byte, err error) {
	code, err := hashCode(hash)
	if err != nil {
		return nil, layout, nil, err
	}
	if f, err = os.Open(path); err != nil {
		return nil, layout, nil, err
	}
	st, err := f.Stat()
	if err == nil {
		layout = leafLayout{size: st.Size(), leaf: leaf}
		sums, err = digests(f, layout, code, cores())
	}
	if err != nil {
		f.Close()
	}
	return f, layout, sums, err
}

// runIdealServe serves one file's leaves until it is told to stop.
func runIdealServe(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("ideal-serve", flag.ContinueOnError)
	leaf := fs.Int("leaf", 1<<20, "leaf size in bytes")
	hash := fs.String("hash", "sha2-256", "hash function")
	over := fs.String("over", "tls", overHelp)
	if err := fs.Parse(args); err != nil {
		return err
	}
	f, layout, sums, err := openDigested(fs.Arg(0), *leaf, *hash)
	if err != nil {
		return err
	}
	defer f.Close()
	send := func(c io.ReadWriter) {
		if err := idealSend(c, f, layout, sums); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "ideal-serve:", err)
		}
	}
	switch *over {
	case "p2p":
		return serveP2P(ctx, send)
	case "tcp":
		return serveTCP(ctx, func(c net.Conn) { send(c) })
	}
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
		DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true,
	}
	return serveTCP(ctx, func(c net.Conn) { send(tls.Server(newWide(c), cfg)) })
}

const overHelp = "what the bytes travel over: tls, tcp (in clear), or p2p (Dray's libp2p transport)"

// serveTCP accepts connections until ctx ends.
func serveTCP(ctx context.Context, serve func(net.Conn)) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := printJSON(listening{Addr: ln.Addr().String()}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		wg.Go(func() {
			defer conn.Close()
			serve(conn)
		})
	}
}

func idealSend(c io.ReadWriter, f io.ReaderAt, l leafLayout, sums [][digestSize]byte) error {
	var ask [8]byte
	if _, err := io.ReadFull(c, ask[:]); err != nil {
		return err
	}
	first, step := int(binary.BigEndian.Uint32(ask[:])), int(binary.BigEndian.Uint32(ask[4:]))
	if step < 1 {
		return fmt.Errorf("%d connections", step)
	}
	if err := binary.Write(c, binary.BigEndian, l.size); err != nil {
		return err
	}
	buf := make([]byte, digestSize+l.leaf)
	for i := first; i < len(sums); i += step {
		off, n := l.extent(i)
		copy(buf, sums[i][:])
		if _, err := f.ReadAt(buf[digestSize:digestSize+n], off); err != nil {
			return err
		}
		if _, err := c.Write(buf[:digestSize+n]); err != nil {
			return err
		}
	}
	// The client knows the size and closes when it has everything; reading until then also writes out what is gathered.
	if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return nil
}

// runIdealGet fetches a file from the ideal server into a new file.
func runIdealGet(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("ideal-get", flag.ContinueOnError)
	from := fs.String("from", "", "host:port of the server")
	out := fs.String("o", "", "destination file")
	leaf := fs.Int("leaf", 1<<20, "leaf size in bytes")
	hash := fs.String("hash", "sha2-256", "hash function")
	conns := fs.Int("conns", 2, "connections")
	over := fs.String("over", "tls", overHelp)
	if err := fs.Parse(args); err != nil {
		return err
	}
	code, err := hashCode(*hash)
	if err != nil {
		return err
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	receive := func(c io.ReadWriter, i int) (int64, error) { return idealReceive(c, f, *leaf, code, i, *conns) }
	fetch := fetchTLS
	switch *over {
	case "p2p":
		fetch = fetchP2P
	case "tcp":
		fetch = fetchTCP
	}
	n, err := fetch(ctx, *from, *conns, receive)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return printJSON(fetched{Bytes: n})
}

// receiver takes what comes over the i-th connection and returns the file's size.
type receiver func(c io.ReadWriter, i int) (int64, error)

// fetchTLS receives over several connections at once and returns the file's size.
func fetchTLS(ctx context.Context, from string, conns int, receive receiver) (int64, error) {
	secured := func(c io.ReadWriter, i int) (int64, error) {
		cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
		return receive(tls.Client(newWide(c.(net.Conn)), cfg), i)
	}
	return fetchTCP(ctx, from, conns, secured)
}

// fetchTCP does the same in clear.
func fetchTCP(ctx context.Context, from string, conns int, receive receiver) (int64, error) {
	return inParallel(conns, func(i int) (int64, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", from)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		return receive(conn, i)
	})
}

// inParallel runs n parts at once. All parts return the same size.
func inParallel(n int, part func(i int) (int64, error)) (int64, error) {
	var wg sync.WaitGroup
	errs := make([]error, n)
	sizes := make([]int64, n)
	for i := range n {
		wg.Go(func() { sizes[i], errs[i] = part(i) })
	}
	wg.Wait()
	return sizes[0], errors.Join(errs...)
}

func idealReceive(c io.ReadWriter, f *os.File, leaf int, code uint64, first, step int) (int64, error) {
	var ask [8]byte
	binary.BigEndian.PutUint32(ask[:], uint32(first))
	binary.BigEndian.PutUint32(ask[4:], uint32(step))
	if _, err := c.Write(ask[:]); err != nil {
		return 0, err
	}
	l := leafLayout{leaf: leaf}
	if err := binary.Read(c, binary.BigEndian, &l.size); err != nil {
		return 0, err
	}
	batch := batchLeaves(leaf)
	h := newHasher(code, batch, leaf)
	for i := first; i < l.count(); i += batch * step {
		var (
			n    int
			offs [16]int64
		)
		for ; n < batch && i+n*step < l.count(); n++ {
			off, size := l.extent(i + n*step)
			offs[n] = off
			h.bufs[n] = h.bufs[n][:digestSize+size]
			if _, err := io.ReadFull(c, h.bufs[n]); err != nil {
				return 0, err
			}
		}
		data := func(k int) []byte { return h.bufs[k][digestSize:] }
		err := h.sum(n, data, func(k int, sum []byte) error {
			if !bytes.Equal(sum, h.bufs[k][:digestSize]) {
				return fmt.Errorf("leaf %d: %w", i+k*step, dray.ErrCorrupt)
			}
			_, err := f.WriteAt(data(k), offs[k])
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return l.size, nil
}

// wideConn gathers the cipher's small reads and writes into large ones. A read writes out first what was gathered,
// because what it waits for may be the answer to that.
type wideConn struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

func newWide(c net.Conn) *wideConn {
	return &wideConn{Conn: c, r: bufio.NewReaderSize(c, socketChunk), w: bufio.NewWriterSize(c, socketChunk)}
}

// Read reads what has arrived.
func (c *wideConn) Read(p []byte) (int, error) {
	if c.r.Buffered() == 0 {
		if err := c.w.Flush(); err != nil {
			return 0, err
		}
	}
	return c.r.Read(p)
}

// Write gathers p.
func (c *wideConn) Write(p []byte) (int, error) { return c.w.Write(p) }

// selfSigned returns a certificate for this run only. The ideal measures the cipher, not whom it talks to.
func selfSigned() (tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// runHash hashes every leaf of a file on all cores and prints how long that took: what `add` is measured against.
func runHash(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("hash", flag.ContinueOnError)
	leaf := fs.Int("leaf", 1<<20, "leaf size in bytes")
	hash := fs.String("hash", "sha2-256", "hash function")
	if err := fs.Parse(args); err != nil {
		return err
	}
	f, layout, _, err := openDigested(fs.Arg(0), *leaf, *hash)
	if err != nil {
		return err
	}
	defer f.Close()
	return printJSON(added{Bytes: layout.size, Leaves: layout.count()})
}
