package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"
)

// What a client of a file server reads: the whole file, parts of it one after the other, or parts with many connections at the
// same time.
const (
	readWhole  = "whole"   // the file
	readRanges = "ranges"  // 1 MiB at a time, anywhere, on one connection
	readPieces = "pieces"  // 4 KiB at a time, the same way
	readCrowd  = "readers" // a thousand connections, 1 MiB each, all of them in the middle of it at the same time
)

const (
	rangeSize  = 1 << 20
	pieceSize  = 4 << 10
	pieceCount = 4096
	crowd      = 1000
	crowdFirst = 64 << 10 // of its part each reader takes before it waits for the others
	// crowdMemory is how much memory a gateway may take for the crowd.
	crowdMemory = 400 << 20
)

// gatewayParties are the gateway of a daemon, and a client that reads from it or from any other server of one file.
var gatewayParties = []party{
	{
		name: "gateway", missing: drayMissing, fill: drayFill,
		serve: func(s *suite, _ row, _ *dataset, home string) (command, error) {
			port, err := freePort()
			if err != nil {
				return command{}, err
			}
			s.gateways[home] = "127.0.0.1:" + port
			return s.drayRun(home, "serve", "--http", s.gateways[home], "--listen", "/ip4/127.0.0.1/tcp/0", "--json"), nil
		},
		address: func(_ context.Context, s *suite, _ *server, home string) (string, error) {
			return s.gateways[home], nil
		},
	},
	{name: "reader", wire: "HTTP in clear"},
}

// runGateway runs a row of a server and a client that reads from it and keeps nothing.
func (s *suite) runGateway(ctx context.Context, r row, set *dataset) (m measure, err error) {
	root, srv, err := s.serve(ctx, r, set)
	if err != nil {
		return m, err
	}
	defer srv.end(&err)
	addr, err := lookupParty(r.server).address(ctx, s, srv, s.home(r.server, r))
	if err != nil {
		return m, err
	}
	if err := errors.Join(warm(set.path), s.settle()); err != nil {
		return m, err
	}
	url := "http://" + addr + "/file"
	if root != "" {
		url = "http://" + addr + "/ipfs/" + root
	}
	before, err := srv.used()
	if err != nil {
		return m, err
	}
	stdout, _, used, err := s.role("http-read", "-reads", r.reads, "-source", set.path, url).runToEnd(ctx)
	if err != nil {
		return m, err
	}
	after, err := srv.used()
	if err != nil {
		return m, err
	}
	m = measure{
		ClientCPU: used.CPU.Seconds(), ServerCPU: (after.CPU - before.CPU).Seconds(), ClientRSS: used.PeakRSS,
		ServerRSS: after.PeakRSS, InForce: lookupParty(r.client).wire,
	}
	if err := lastLine(stdout, &m.Client); err != nil {
		return m, err
	}
	m.Bytes, m.Seconds, m.Synced = m.Client.Bytes, m.Client.Seconds, m.Client.Seconds
	if r.server == "gateway" && r.reads == readCrowd && m.ServerRSS > crowdMemory {
		return m, fmt.Errorf("%d MiB for %d readers, more than %d", m.ServerRSS>>20, crowd, crowdMemory>>20)
	}
	return m, nil
}

// reader reads parts of one file from a server, and compares them with the file.
type reader struct {
	url    string
	source *os.File
	size   int64
	client *http.Client
}

// runHTTPRead is the client's process. What it prints are the bytes and seconds of reading alone; everything is read once more
// and compared, after the clock has stopped, but by the crowd, whose bytes are compared as they come.
func runHTTPRead(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("http-read", flag.ContinueOnError)
	reads := fs.String("reads", readWhole, "whole, ranges, pieces or readers")
	source := fs.String("source", "", "the file that is served")
	if err := fs.Parse(args); err != nil {
		return err
	}
	f, err := os.Open(*source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r := &reader{url: fs.Arg(0), source: f, size: info.Size(), client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: crowd, ReadBufferSize: 64 << 10,
	}}}
	if err := r.read(ctx, 0, 1, false, nil); err != nil { // a connection, and what a server prepares for the first
		return err
	}
	var got fetched
	start := time.Now()
	if *reads == readCrowd {
		got.Bytes, err = r.crowd(ctx)
		got.Seconds = time.Since(start).Seconds()
		return errors.Join(err, printJSON(got))
	}
	for _, check := range []bool{false, true} {
		start, got.Bytes = time.Now(), 0
		for _, part := range r.parts(*reads) {
			if err := r.read(ctx, part[0], part[1], check, nil); err != nil {
				return err
			}
			got.Bytes += part[1]
		}
		if !check {
			got.Seconds = time.Since(start).Seconds()
		}
	}
	return printJSON(got)
}

// parts returns offsets and lengths.
func (r *reader) parts(reads string) (list [][2]int64) {
	size, count := int64(rangeSize), int(r.size/rangeSize)
	switch reads {
	case readWhole:
		return [][2]int64{{0, r.size}}
	case readPieces:
		size, count = pieceSize, pieceCount
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range count {
		list = append(list, [2]int64{rnd.Int64N(r.size - size + 1), size})
	}
	return list
}

// read reads size bytes at offset. After the first of them it calls pause, if that is set.
func (r *reader) read(ctx context.Context, offset, size int64, check bool, pause func()) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return err
	}
	want := http.StatusOK
	if size < r.size {
		want = http.StatusPartialContent
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+size-1))
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want || resp.ContentLength != size {
		return fmt.Errorf("%s: status %d and %d bytes, want %d and %d", r.url, resp.StatusCode, resp.ContentLength, want, size)
	}
	buf := make([]byte, 256<<10)
	var same []byte
	if check {
		same = make([]byte, len(buf))
	}
	for at := int64(0); at < size; {
		most := int64(len(buf))
		if pause != nil && at == 0 {
			most = crowdFirst
		}
		n, err := resp.Body.Read(buf[:min(most, size-at)])
		if check && n > 0 {
			if _, err := r.source.ReadAt(same[:n], offset+at); err != nil {
				return err
			}
			if !bytes.Equal(buf[:n], same[:n]) {
				return fmt.Errorf("%s: other bytes at %d", r.url, offset+at)
			}
		}
		if at == 0 && pause != nil {
			pause()
		}
		at += int64(n)
		if err != nil && (!errors.Is(err, io.EOF) || at < size) {
			return err
		}
	}
	return nil
}

// crowd reads with many connections. Nobody goes on before all are in the middle of their answer.
func (r *reader) crowd(ctx context.Context) (int64, error) {
	size := min(rangeSize, r.size/2)
	var (
		wg, first sync.WaitGroup
		errs      = make([]error, crowd)
	)
	first.Add(crowd)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range crowd {
		offset := rnd.Int64N(r.size - size + 1)
		wg.Go(func() {
			var once sync.Once
			done := func() { once.Do(first.Done) }
			defer done()
			errs[i] = r.read(ctx, offset, size, true, func() { done(); first.Wait() })
		})
	}
	wg.Wait()
	return int64(crowd) * size, errors.Join(errs...)
}
