package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/digest"
)

// What `dray doctor` measures of this machine, each check in a fraction of a second: what a transfer needs of it, and
// whether that is enough.

const (
	probeBytes  = 64 << 20 // written to the disk and read back
	probeStep   = 1 << 20
	probeFor    = 200 * time.Millisecond // of each rate that needs no disk
	probeSyncs  = 5
	recordBytes = 16 << 10 // of a TLS record

	slowDisk   = 50e6 // bytes a second, below which a gigabit link is not kept up with
	slowSync   = 50 * time.Millisecond
	slowHash   = 300e6
	slowCipher = 300e6
	fewFiles   = 4096
	quicBuffer = 7_500_000 // bytes that QUIC wants of a UDP socket
	leastSpace = 1 << 30
)

// check is one thing that was looked at.
type check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Value says what was found, for people.
	Value string `json:"value"`
	// Rate is in bytes a second, if that is what was measured; Number another figure, of the unit in Value.
	Rate   float64 `json:"rate,omitempty"`
	Number float64 `json:"number,omitempty"`
	// Advice says what to do, unless it is OK.
	Advice string `json:"advice,omitempty"`
}

// rated is a check of a rate that should be no less than least.
func rated(name string, bytes int64, took time.Duration, least float64, advice string) check {
	c := check{Name: name, Rate: float64(bytes) / max(took, time.Microsecond).Seconds()}
	c.Value = size(int64(c.Rate)) + "/s"
	if c.OK = c.Rate >= least; !c.OK {
		c.Advice = advice
	}
	return c
}

// failed is a check that could not be made.
func failed(name string, err error, advice string) check {
	return check{Name: name, Value: oneLine(err), Advice: advice}
}

// examine makes the checks that need no daemon, in the order in which they are told.
func examine(ctx context.Context, home string) []check {
	list := []check{checkHome(home), checkSpace(home)}
	for _, f := range []func() []check{
		func() []check { return checkDisk(ctx, home) }, checkHashes, checkCiphers, checkLoopback,
		func() []check { return []check{checkFiles(), checkBuffers(), checkClock(home)} },
	} {
		if ctx.Err() != nil {
			return list
		}
		list = append(list, f()...)
	}
	return list
}

// checkHome looks whether others can read the home.
func checkHome(home string) check {
	c := check{Name: "home", OK: true, Value: home}
	info, err := os.Stat(home)
	if err != nil {
		return failed("home", err, "name another home with --home DIR or DRAY_HOME")
	}
	switch perm := info.Mode().Perm(); {
	case perm&0o077 != 0:
		c.OK, c.Value = false, fmt.Sprintf("%s may be entered by others (%04o)", home, perm)
		c.Advice = fmt.Sprintf("chmod 700 %s", home)
	case !owned(info):
		c.OK, c.Value, c.Advice = false, home+" belongs to somebody else", "use a home of your own with --home DIR"
	}
	if key, err := os.Stat(keyPath(home)); err == nil && key.Mode().Perm()&0o077 != 0 {
		c.OK, c.Value = false, fmt.Sprintf("the key %s may be read by others (%04o)", keyPath(home), key.Mode().Perm())
		c.Advice = "chmod 600 " + keyPath(home)
	}
	return c
}

func checkSpace(home string) check {
	free, all, ok := freeSpace(home)
	if !ok {
		return check{Name: "space", OK: true, Value: "not known on this system"}
	}
	c := check{Name: "space", OK: free >= leastSpace, Number: float64(free), Value: fmt.Sprintf("%s of %s are free", size(free), size(all))}
	if !c.OK {
		c.Advice = "`dray rm` removes what is not needed"
	}
	return c
}

// checkDisk writes a file in the home, syncs it, and reads it back.
func checkDisk(ctx context.Context, home string) []check {
	const advice = "a home on a faster disk (--home DIR) makes gets faster"
	f, err := os.CreateTemp(home, "doctor-*")
	if err != nil {
		return []check{failed("disk writes", err, "the home must be writable")}
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := make([]byte, probeStep)
	_, _ = rand.Read(buf) // never fails
	begin := time.Now()
	var wrote int64
	for ; wrote < probeBytes && time.Since(begin) < 3*time.Second && ctx.Err() == nil; wrote += probeStep {
		if _, err := f.Write(buf); err != nil {
			return []check{failed("disk writes", err, "free some space, or use another home with --home DIR")}
		}
	}
	if err := f.Sync(); err != nil {
		return []check{failed("disk writes", err, "the disk does not keep what is written to it")}
	}
	list := []check{rated("disk writes", wrote, time.Since(begin), slowDisk, advice)}
	cold := uncache(f)
	begin = time.Now()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return append(list, failed("disk reads", err, advice))
	}
	read, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, f, buf)
	if err != nil {
		return append(list, failed("disk reads", err, advice))
	}
	c := rated("disk reads", read, time.Since(begin), slowDisk, advice)
	if !cold {
		c.Value += " (from memory)"
	}
	list = append(list, c)
	var syncs []time.Duration
	for range probeSyncs {
		begin = time.Now()
		if _, err = f.WriteAt(buf[:4096], 0); err == nil {
			err = f.Sync()
		}
		if err != nil {
			return append(list, failed("disk syncs", err, advice))
		}
		syncs = append(syncs, time.Since(begin))
	}
	slices.Sort(syncs)
	mid := syncs[len(syncs)/2]
	c = check{
		Name: "disk syncs", OK: mid <= slowSync, Number: mid.Seconds(),
		Value: fmt.Sprintf("%.1f ms each", float64(mid)/float64(time.Millisecond)),
	}
	if !c.OK {
		c.Advice = "many small files will be slow; " + advice
	}
	return append(list, c)
}

// checkHashes measures the hash functions that blocks are named by: one alone, and all cores together.
func checkHashes() []check {
	const advice = "other work on this machine, or a processor without SHA instructions, makes gets slow"
	var list []check
	block := make([]byte, probeStep)
	for _, h := range []struct {
		name string
		code uint64
	}{{"sha2-256", mh.SHA2_256}, {"blake3", mh.BLAKE3}} {
		prefix := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: h.code, MhLength: 32}
		bytes, took := pace(func() error {
			_, err := dray.Hashed(prefix, block)
			return err
		}, probeStep)
		list = append(list, rated("hash "+h.name, bytes, took, slowHash, advice))
		pool := digest.NewPool(digest.Config{})
		jobs := make([]*digest.Job, 4*runtime.GOMAXPROCS(0))
		for i := range jobs {
			jobs[i] = &digest.Job{}
		}
		bytes, took = pace(func() error {
			for _, j := range jobs {
				*j = digest.Job{Prefix: prefix, Data: block}
			}
			pool.SumAll(jobs)
			return jobs[0].Err
		}, int64(len(jobs))*probeStep)
		pool.Close()
		list = append(list, rated("hash "+h.name+" on all cores", bytes, took, slowHash, advice))
	}
	return list
}

// pace does something over and over, for a while, and returns the bytes that it did and the time it took.
func pace(f func() error, each int64) (bytes int64, took time.Duration) {
	begin := time.Now()
	for took < probeFor {
		if f() != nil {
			return 0, probeFor
		}
		bytes += each
		took = time.Since(begin)
	}
	return bytes, took
}

func checkCiphers() []check {
	const advice = "a trusted network may do without: --data-plane clear on both sides"
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return []check{failed("cipher aes-gcm", err, advice)}
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return []check{failed("cipher aes-gcm", err, advice)}
	}
	nonce := make([]byte, gcm.NonceSize())
	in, out := make([]byte, recordBytes), make([]byte, 0, recordBytes+gcm.Overhead())
	bytes, took := pace(func() error {
		out = gcm.Seal(out[:0], nonce, in, nil) // the same nonce for a measurement that nobody sees
		return nil
	}, recordBytes)
	return []check{rated("cipher aes-gcm", bytes, took, slowCipher, advice)}
}

// checkLoopback sends bytes from this process to itself: over TCP, and over TLS.
func checkLoopback() []check {
	const advice = "the network of this machine itself is slow; nothing from elsewhere will be faster"
	cert, err := throwawayCertificate()
	if err != nil {
		return []check{failed("loopback tls", err, advice)}
	}
	plain, err := loop(nil)
	if err != nil {
		return []check{failed("loopback tcp", err, advice)}
	}
	plain.Name = "loopback tcp"
	secure, err := loop(&cert)
	if err != nil {
		return []check{plain, failed("loopback tls", err, advice)}
	}
	secure.Name = "loopback tls"
	for _, c := range []*check{&plain, &secure} {
		if !c.OK {
			c.Advice = advice
		}
	}
	return []check{plain, secure}
}

// loop measures one connection over the loopback.
func loop(cert *tls.Certificate) (check, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return check{}, err
	}
	var wg sync.WaitGroup
	defer wg.Wait() // which ends at the latest when the listener is closed
	defer l.Close()
	var sendErr error
	wg.Go(func() { sendErr = send(l.Addr().String(), cert != nil) })
	in, err := l.Accept()
	if err != nil {
		return check{}, err
	}
	defer in.Close()
	if cert != nil {
		in = tls.Server(in, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13})
	}
	buf := make([]byte, 256<<10)
	if _, err := io.ReadFull(in, buf[:1]); err != nil { // the handshake is over
		return check{}, err
	}
	begin := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, buf)
	took := time.Since(begin)
	in.Close()
	wg.Wait()
	if err == nil {
		err = sendErr
	}
	return rated("", n, took, slowHash, ""), err
}

// send writes to a loopback for a while.
func send(addr string, secure bool) error {
	out, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer out.Close()
	if secure {
		// The certificate was made a moment ago for nobody but this process.
		out = tls.Client(out, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	}
	buf := make([]byte, 256<<10)
	for begin := time.Now(); time.Since(begin) < probeFor; {
		if _, err := out.Write(buf); err != nil {
			return err
		}
	}
	return out.Close()
}

func throwawayCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	about := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &about, &about, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func checkFiles() check {
	n := descriptors()
	if n == 0 {
		return check{Name: "open files", OK: true, Value: "not known on this system"}
	}
	c := check{Name: "open files", OK: n >= fewFiles, Number: float64(n), Value: fmt.Sprintf("%d allowed", n)}
	if !c.OK {
		c.Advice = fmt.Sprintf("ulimit -n %d, or LimitNOFILE=%d in the service's unit", 16*fewFiles, 16*fewFiles)
	}
	return c
}

// checkBuffers looks how large a UDP socket's buffer may be, on which QUIC depends.
func checkBuffers() check {
	const name = "udp buffer"
	advice := fmt.Sprintf("sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d; TCP does not need it", quicBuffer, quicBuffer)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return failed(name, err, "peers can be reached over TCP only")
	}
	defer conn.Close()
	n, err := largestBuffer(conn)
	if err != nil {
		return failed(name, err, advice)
	}
	if n == 0 {
		return check{Name: name, OK: true, Value: "not known on this system"}
	}
	c := check{Name: name, OK: n >= quicBuffer, Number: float64(n), Value: fmt.Sprintf("%s, QUIC wants %s", size(int64(n)), size(quicBuffer))}
	if !c.OK {
		c.Advice = advice
	}
	return c
}

// checkClock compares the clock with the file system's and with what cannot have been later.
func checkClock(home string) check {
	const advice = "set the clock, for example with NTP: bans, back-offs and tickets that expire depend on it"
	c := check{Name: "clock", OK: true, Advice: ""}
	now := time.Now()
	c.Value = now.Format(time.DateTime)
	if now.Before(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)) {
		c.OK, c.Value, c.Advice = false, c.Value+" is in the past", advice
		return c
	}
	path := filepath.Join(home, fmt.Sprintf("doctor-clock-%d", os.Getpid()))
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return c // the disk's check says why
	}
	defer os.Remove(path)
	if info, err := os.Stat(path); err == nil {
		if off := info.ModTime().Sub(now); off > 5*time.Second || off < -5*time.Second {
			c.OK, c.Number, c.Advice = false, off.Seconds(), advice
			c.Value += fmt.Sprintf("; the file system's clock is %s off", seconds(off.Abs()))
		}
	}
	return c
}
