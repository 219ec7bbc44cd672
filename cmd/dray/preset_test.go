package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"dray"
	"dray/node"
	"dray/settings"
	"dray/store"
	"dray/transport"
)

// command runs dray on a home and returns what it printed.
func command(t *testing.T, home string, env []string, want int, args ...string) (string, *os.ProcessState) {
	t.Helper()
	var out, complaint bytes.Buffer
	cmd := exec.Command("dray", append([]string{"--home", home}, args...)...)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	_ = cmd.Run() // the code says it
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Fatalf("dray %v: exit code %d, want %d: %s", args, code, want, complaint.String())
	}
	return out.String(), cmd.ProcessState
}

// TestPresets: with each preset two daemons and a third transfer a file with several sources, continue one that was
// interrupted, and keep what is private from those without its ticket.
func TestPresets(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.bin")
	data := make([]byte, 24<<20)
	rand.NewChaCha8([32]byte{7}).Read(data)
	if err := os.WriteFile(big, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, preset := range settings.Presets() {
		t.Run(preset, func(t *testing.T) {
			home := func(name string) string { return filepath.Join(dir, preset, name) }
			env := []string{"DRAY_PRESET=" + preset}
			seed := begin(t, home("seed"), env)
			if code, body := fetch(t, seed.url()+readyPath, ""); code != http.StatusOK {
				t.Errorf("it is not ready: %d %s", code, body)
			}
			var shared, private shareResult
			share := func(to *shareResult, args ...string) {
				t.Helper()
				out, _ := command(t, home("seed"), env, exitOK, append([]string{"--json", "share"}, args...)...)
				if err := json.Unmarshal([]byte(out), to); err != nil {
					t.Fatal(err)
				}
			}
			share(&shared, big)

			// A second daemon gets it as a job, and serves it.
			second := begin(t, home("second"), env)
			command(t, home("second"), env, exitOK, "get", shared.Ticket, "-o", filepath.Join(home("second"), "big.bin"), "--mode", "both")

			// A third gets it from both, is killed on the way, and continues.
			if err := os.MkdirAll(home("third"), 0o700); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(home("third"), "big.bin")
			from := []string{"--json", "get", shared.Ticket, "-o", out, "--from", addressOf(t, second)}
			cut := exec.Command("dray", append([]string{"--home", home("third")}, append(from, "--limit-down", "8MB/s")...)...)
			var complaint bytes.Buffer
			cut.Stderr = &complaint
			cut.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
			lines, err := cut.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cut.Start(); err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(lines)
			for {
				var n getNote
				if err := dec.Decode(&n); err != nil {
					t.Fatalf("it was not interrupted in time: %v, %s", err, complaint.String())
				}
				if n.Event == "progress" && n.Done > 8<<20 {
					break
				}
			}
			_ = cut.Process.Signal(syscall.SIGINT)
			_, _ = io.Copy(io.Discard, lines)
			_ = cut.Wait()
			if code := cut.ProcessState.ExitCode(); code != exitInterrupted {
				t.Fatalf("the interrupted get ends with %d", code)
			}
			text, _ := command(t, home("third"), env, exitOK, from...)
			last := text[strings.LastIndexByte(strings.TrimSpace(text), '\n')+1:]
			var done struct {
				Known   int64    `json:"known_bytes"`
				Sources []source `json:"sources"`
			}
			if err := json.Unmarshal([]byte(last), &done); err != nil {
				t.Fatal(err)
			}
			if done.Known < 4<<20 {
				t.Errorf("only %d bytes were known after the interruption", done.Known)
			}
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, data) {
				t.Errorf("what was got is not what was shared: %v", err)
			}

			// What is private.
			secret := filepath.Join(dir, preset, "secret.bin")
			if err := os.WriteFile(secret, append([]byte(preset), data[:1<<20]...), 0o600); err != nil {
				t.Fatal(err)
			}
			share(&private, "--private", secret)
			command(t, home("second"), env, exitOK, "get", private.Ticket, "-o", filepath.Join(home("second"), "secret.bin"))
			command(t, home("fourth"), env, exitNotFound, "get", private.CID, "-o", filepath.Join(dir, preset, "none.bin"),
				"--from", addressOf(t, seed), "--timeout", "20s")
			second.end(t, exitOK)
			seed.end(t, exitOK)
		})
	}
}

// addressOf returns where a daemon can be reached over TCP.
func addressOf(t *testing.T, b *begun) string {
	t.Helper()
	list, _ := b.first["addrs"].([]any)
	i := slices.IndexFunc(list, func(a any) bool { return strings.HasPrefix(a.(string), "/ip4/127.0.0.1/tcp/") })
	if i < 0 {
		t.Fatalf("it listens at %v", list)
	}
	return list[i].(string)
}

// TestEdgeIsSmall: what edge is for, less memory for whoever gets.
func TestEdgeIsSmall(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.bin")
	data := make([]byte, 128<<20)
	rand.NewChaCha8([32]byte{8}).Read(data)
	if err := os.WriteFile(big, data, 0o600); err != nil {
		t.Fatal(err)
	}
	peak := func(preset string) (seeds, gets int64) {
		t.Helper()
		env := []string{"DRAY_PRESET=" + preset}
		here, there := t.TempDir(), t.TempDir()
		seed, get := begin(t, here, env), begin(t, there, env)
		out, _ := command(t, here, env, exitOK, "--json", "share", big)
		var shared shareResult
		if err := json.Unmarshal([]byte(out), &shared); err != nil {
			t.Fatal(err)
		}
		command(t, there, env, exitOK, "get", "-q", shared.Ticket, "-o", filepath.Join(there, "got.bin"))
		seeds, gets = memory(t, seed.cmd.Process.Pid, "VmHWM"), memory(t, get.cmd.Process.Pid, "VmHWM")
		get.end(t, exitOK)
		seed.end(t, exitOK)
		return seeds, gets
	}
	least := func(preset string) (int64, int64) { // of two, because a busy machine only adds
		s1, g1 := peak(preset)
		s2, g2 := peak(preset)
		return min(s1, s2), min(g1, g2)
	}
	edgeSeed, edgeGet := least("edge")
	seed, get := least("balanced")
	t.Logf("%d MiB: the seed takes %d MiB at most as edge, %d as balanced; the get %d and %d", len(data)>>20,
		edgeSeed>>20, seed>>20, edgeGet>>20, get>>20)
	if edgeGet >= get {
		t.Error("edge takes no less memory")
	}
}

// TestLowLatencyAsksOnce: what low-latency is for. A block of 10 KiB that some peer may have comes with the answer whether it
// is there, in place of a round trip later. This is virtual time: nothing but round trips counts.
func TestLowLatencyAsksOnce(t *testing.T) {
	const trip = 100 * time.Millisecond
	took := func(s settings.Settings) (took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			mem := transport.NewMemory(transport.MemoryConfig{Latency: trip / 2})
			host := func() *node.Node {
				cfg := node.Config{Store: store.NewMem(0), Network: mem.NewHost()}
				spend(&s.Node, &cfg)
				n, err := node.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			asker, holder, other := host(), host(), host()
			defer asker.Close()
			defer holder.Close()
			defer other.Close()
			b, err := dray.Hashed(cid.NewPrefixV1(cid.Raw, multihash.SHA2_256), make([]byte, 10<<10))
			if err != nil {
				t.Fatal(err)
			}
			if err := holder.Put(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			for _, n := range []*node.Node{other, holder} {
				if err := asker.Connect(t.Context(), transport.Peer{ID: n.Self(), Addrs: n.Addrs()}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second) // all links are up
			session := asker.NewSession(node.SessionConfig{})
			defer session.Close()
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := session.Get(ctx, b.CID()); err != nil {
				t.Fatal(err)
			}
			took = time.Since(begun)
		})
		return took
	}
	low, balanced := took(settings.LowLatency()), took(settings.Balanced())
	t.Logf("a block of 10 KiB: low-latency %v, balanced %v, a round trip is %v", low, balanced, trip)
	if low > trip+trip/2 || balanced < low+trip/2 {
		t.Errorf("low-latency takes %v, balanced %v; want one round trip, and one more", low, balanced)
	}
}
