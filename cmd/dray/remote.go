package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// remote is a home that another process has open.
type remote struct {
	home   string
	client http.Client
}

func (r *remote) dir() string { return r.home }

func (r *remote) Close() error {
	r.client.CloseIdleConnections()
	return nil
}

// dialRemote returns the daemon that has the home open, or nil if none has.
func dialRemote(ctx context.Context, home string) (*remote, error) {
	path := findControl(home)
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, nil // nobody, or somebody who is dead
	case err != nil:
		return nil, fmt.Errorf("the daemon on %s does not answer: %w", home, err)
	}
	conn.Close()
	r := &remote{home: home}
	r.client.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}
	return r, nil
}

// callRemote runs a task in the daemon. The last argument only fixes its result's type.
func callRemote[Q, N, R any](ctx context.Context, r *remote, name string, q Q, p pipes[N], result R) (R, error) {
	line := append(encode(q), '\n')
	var body io.Reader = bytes.NewReader(line)
	if p.in != http.NoBody {
		body = io.MultiReader(body, p.in)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://home/v1/"+name, body)
	if err != nil {
		return result, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return result, r.gone(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return result, fmt.Errorf("the daemon on %s does not know %q (%s): it is another version of dray; restart it",
			r.home, name, resp.Status)
	}
	in := bufio.NewReaderSize(resp.Body, 256<<10)
	for {
		var f frame
		if err := readFrame(in, &f); err != nil {
			return result, r.gone(ctx, err)
		}
		switch {
		case f.Error != nil:
			return result, f.Error.err()
		case f.Bytes > 0:
			if err := copyOut(p.out, in, int64(f.Bytes)); err != nil {
				var out outputError
				if errors.As(err, &out) {
					return result, out.err
				}
				return result, r.gone(ctx, err)
			}
		case f.Wait != nil:
			if p.wait != nil {
				p.wait(*f.Wait)
			}
		case f.Note != nil:
			var n N
			if err := json.Unmarshal(f.Note, &n); err != nil {
				return result, r.gone(ctx, err)
			}
			p.note(n)
		case f.Result != nil:
			return result, json.Unmarshal(f.Result, &result)
		}
	}
}

func readFrame(in *bufio.Reader, f *frame) error {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return json.Unmarshal(line, f)
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		case len(line) > maxFrameLine:
			return errors.New("a line of the answer is too long")
		}
	}
}

// outputError is a failure to write what came, as against a failure to read it.
type outputError struct{ err error }

func (e outputError) Error() string { return e.err.Error() }

type outputWriter struct{ w io.Writer }

func (o outputWriter) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		err = outputError{err}
	}
	return n, err
}

func copyOut(w io.Writer, in io.Reader, n int64) error {
	_, err := io.CopyN(outputWriter{w}, in, n)
	return err
}

// gone says that the daemon broke off in the middle of a task.
func (r *remote) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("the daemon on %s went away before it was done (%w); run the same command again to continue",
		r.home, err)
}
