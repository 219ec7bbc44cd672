package main

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
)

// TestWatchSent sends bytes between two sockets of this process and asks the kernel how many there were.
func TestWatchSent(t *testing.T) {
	const size = 3 << 20
	ln := listen(t)
	defer ln.Close()
	sent := watchSent(os.Getpid())
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer c.Close()
		if n, err := io.Copy(io.Discard, io.LimitReader(c, size)); n != size {
			t.Errorf("received %d bytes: %v", n, err)
		}
		if _, err := c.Write([]byte{1}); err != nil {
			t.Errorf("answer: %v", err)
		}
	})
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	n, err := sent()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel counts the opening of a connection as a byte, and the answer is one.
	if n < size || n > size+16 {
		t.Errorf("the kernel says %d bytes, of %d", n, size)
	}
}

// TestTree checks that a program that forks is seen with its children, and that its first ready line is waited for.
func TestTree(t *testing.T) {
	c := command{
		path: "/bin/sh", args: []string{"-c", "echo starting; echo up; sleep 600 & trap 'kill $!; exit 7' TERM; wait"},
		forks: true, ready: "up", stopped: 7,
	}
	s, err := c.start()
	if err != nil {
		t.Fatal(err)
	}
	alone, err := peakRSS(s.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < 2; { // until the shell has forked
		pids, err := tree(s.cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		n = len(pids)
	}
	all, err := treePeak(s.cmd.Process.Pid)
	if err != nil || all <= alone {
		t.Errorf("with its child it has %d bytes, alone %d: %v", all, alone, err)
	}
	if _, err := s.used(); err != nil {
		t.Error(err)
	}
	end, err := s.stop()
	if err != nil || end.peak <= 0 {
		t.Errorf("ends with %v and a peak of %d", err, end.peak)
	}
}

// TestServerLines checks that a server's first and last lines are kept, however many are between.
func TestServerLines(t *testing.T) {
	s, err := command{path: "/bin/sh", args: []string{"-c", "seq 1 1000; read line; echo end $line; exec cat"}}.start()
	if err != nil {
		t.Fatal(err)
	}
	if string(s.first) != "1\n" {
		t.Errorf("first line %q", s.first)
	}
	if err := s.tell(map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	var last []byte
	for string(last) != "end {\"a\":1}\n" {
		if last, err = s.next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.stop(); err != nil {
		t.Error(err)
	}
}
