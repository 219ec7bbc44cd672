//go:build s3

package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"dray"
)

// These tests run a real server that speaks S3, which DRAY_S3_SERVER names: versitygw, before a directory, on loopback.

const accessKey, secretKey = "tester", "a secret of sixteen"

// s3Server is a process that a test may kill and start again on the same port.
type s3Server struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
	wg   sync.WaitGroup // waits for the process
}

func startS3(t *testing.T) *s3Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &s3Server{t: t, dir: t.TempDir(), addr: l.Addr().String()}
	l.Close()
	for _, dir := range []string{"objects", "about"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	t.Cleanup(s.kill)
	if err := s.client().MakeBucket(t.Context(), "weights", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *s3Server) client() *minio.Client {
	s.t.Helper()
	c, err := minio.New(s.addr, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, "")})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *s3Server) put(key string, b []byte) {
	s.t.Helper()
	_, err := s.client().PutObject(s.t.Context(), "weights", key, bytes.NewReader(b), int64(len(b)), minio.PutObjectOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *s3Server) start() {
	s.t.Helper()
	program := os.Getenv("DRAY_S3_SERVER")
	if program == "" {
		s.t.Fatal("DRAY_S3_SERVER names no program; `make s3` does")
	}
	s.cmd = exec.Command(program, "--port", s.addr, "--access", accessKey, "--secret", secretKey, "--quiet",
		"posix", "--sidecar", filepath.Join(s.dir, "about"), filepath.Join(s.dir, "objects"))
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.cmd
	s.wg.Go(func() { _ = cmd.Wait() }) // it is killed
	until(s.t, "the server to listen", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *s3Server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // it may have ended
		s.wg.Wait()
		s.cmd = nil
	}
}

func (s *s3Server) source() Source {
	return Source{
		Name: "w", Kind: Bucketed, URL: "http://" + s.addr,
		Bucket: Bucket{Name: "weights", Prefix: "llama/", AccessKey: accessKey, SecretKey: secretKey},
	}
}

// What a bucket has: whole, in ranges, missing, listed.
func TestBucket(t *testing.T) {
	s := startS3(t)
	b, small := content("b", 300*kib+5), content("small", 100)
	s.put("llama/model 1+2.bin", b)
	s.put("llama/sub/ü.json", small)
	s.put("other.bin", small)
	w := openEdge(t, Config{Sources: []Source{s.source()}})
	at := "w/model%201+2.bin"
	w.want(w.get(at, "Range", "bytes=100000-100009"), 206, b[100000:100010], "miss")
	w.settled()
	w.want(w.get(at), 200, b, "")
	w.settled()
	w.want(w.get(at), 200, b, "hit")
	w.want(w.do(t.Context(), http.MethodHead, "w/sub/%C3%BC.json"), 200, []byte{}, "")
	w.want(w.get("w/sub/%C3%BC.json"), 200, small, "")
	w.want(w.get("w/none"), 404, nil, "")
	w.want(w.get("w/..%2fother.bin"), 400, nil, "")
	if n := w.edge.Stats().BytesFetched; n != int64(len(b)+len(small)) {
		t.Errorf("%d bytes were fetched of %d", n, len(b)+len(small))
	}
	w.exact()

	fresh := openEdge(t, Config{Sources: []Source{s.source()}})
	var names []string
	for _, target := range []string{"s3://weights/llama/", "w/", "s3://weights/llama/sub/"} {
		names = names[:0]
		for name, err := range fresh.edge.Targets(t.Context(), target) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
			if _, err := fresh.edge.Warm(t.Context(), name, nil); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{"w/model%201+2.bin", "w/sub/%C3%BC.json"}
		if strings.HasSuffix(target, "sub/") {
			want = want[1:]
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s means %q", target, names)
		}
	}
	fresh.want(fresh.get(at), 200, b, "hit")
	fresh.exact()
}

// Keys that the server does not accept, or that there are none of, are an error that says so.
func TestBucketRefuses(t *testing.T) {
	s := startS3(t)
	s.put("llama/a", content("a", 100))
	wrong, none := s.source(), s.source()
	wrong.Bucket.SecretKey = "another secret of it"
	none.Bucket.AccessKey, none.Bucket.SecretKey = "", ""
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_ACCESS_KEY", "")
	for name, source := range map[string]Source{"wrong": wrong, "none": none} {
		w := openEdge(t, Config{Sources: []Source{source}})
		g := w.get("w/a")
		w.want(g, 502, nil, "")
		if !strings.Contains(string(g.body), "credentials") || strings.Contains(string(g.body), "secret of it") {
			t.Errorf("%s: says %q", name, g.body)
		}
		for _, err := range w.edge.Targets(t.Context(), "w/") {
			if !errors.Is(err, dray.ErrRefused) {
				t.Errorf("%s: list: %v", name, err)
			}
		}
	}
	// The same keys from a file and from the environment.
	file := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[mine]\naws_access_key_id = %s\naws_secret_access_key = %s\n", accessKey, secretKey)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	filed := none
	filed.Bucket.File, filed.Bucket.Profile = file, "mine"
	w := openEdge(t, Config{Sources: []Source{filed}})
	w.want(w.get("w/a"), 200, content("a", 100), "")
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	w = openEdge(t, Config{Sources: []Source{none}})
	w.want(w.get("w/a"), 200, content("a", 100), "")
}

// The server is killed in the middle of an answer, and comes back: the client gets all, and nothing comes twice.
func TestBucketKilled(t *testing.T) {
	s := startS3(t)
	b := content("big", 48<<20)
	s.put("llama/big", b)
	w := openEdge(t, Config{Segment: 1 << 20, Size: 256 << 20, Sources: []Source{s.source()}, Rest: 100 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.http.URL+"/edge/w/big", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.http.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make([]byte, len(b))
	n := 0
	for n < 8<<20 {
		m, err := resp.Body.Read(got[n : 8<<20])
		if n += m; err != nil {
			t.Fatal(err)
		}
	}
	s.kill()
	// What was on its way still comes; then nothing does, until the server is back.
	rest := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, err := io.ReadFull(resp.Body, got[n:])
		rest <- err
	})
	until(t, "the edge to notice", func() bool { return w.edge.Stats().Sources[0].Failures > 0 })
	select {
	case err := <-rest:
		t.Fatalf("all had come before the server was killed, or it broke off: %v", err)
	default:
	}
	s.start()
	if err := <-rest; err != nil {
		t.Fatal(err)
	}
	if string(got) != string(b) {
		t.Fatal("wrong bytes")
	}
	w.settled()
	if x := w.edge.Stats().BytesFetched; x != int64(len(b)) {
		t.Errorf("%d bytes were fetched of %d", x, len(b))
	}
	w.exact()
}
