package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dray"
)

const (
	bansName = "bans"
	maxBans  = 4096
	// noEnd is how long a ban without an end lasts, as the exchange sees it.
	noEnd = 100 * 365 * 24 * time.Hour
)

// ban is one line of the file of bans, in JSON.
type ban struct {
	Peer string `json:"peer"`
	// Until is nil when there is no end.
	Until  *time.Time `json:"until,omitempty"`
	Reason string     `json:"reason"`
}

// left is how long the ban still lasts, at most a hundred years.
func (b ban) left(now time.Time) time.Duration {
	if b.Until == nil {
		return noEnd
	}
	return min(b.Until.Sub(now), noEnd)
}

func (b ban) words() string {
	if b.Until == nil {
		return "until `dray unban`  " + b.Reason
	}
	return fmt.Sprintf("until %s  %s", b.Until.Local().Format(time.RFC3339), b.Reason)
}

// banList is the file in a home that keeps the operator's bans. It is safe for concurrent use by one process, the one that
// has the home open.
type banList struct {
	path string
	mu   sync.Mutex
}

// list returns the bans that are not over, in the order in which they were made.
func (l *banList) list(now time.Time) ([]ban, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read(now)
}

// add keeps a ban, in place of an earlier one of the same peer.
func (l *banList) add(b ban, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, err := l.read(now)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(o ban) bool { return o.Peer == b.Peer })
	if len(list) >= maxBans {
		return fmt.Errorf("%d peers are banned, and that is the most; `dray unban` some", len(list))
	}
	return l.write(append(list, b))
}

// remove forgets the ban of a peer and reports whether there was one.
func (l *banList) remove(id dray.PeerID, now time.Time) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, err := l.read(now)
	if err != nil {
		return false, err
	}
	left := slices.DeleteFunc(slices.Clone(list), func(o ban) bool { return o.Peer == id.String() })
	if len(left) == len(list) {
		return false, nil
	}
	return true, l.write(left)
}

func (l *banList) read(now time.Time) ([]ban, error) {
	text, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the bans cannot be read: %w", err)
	}
	list := []ban{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var b ban
		err := json.Unmarshal(line, &b)
		if err == nil {
			_, err = dray.ParsePeerID(b.Peer)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of %s is no ban (%w); correct it, or remove the line", n, l.path, err)
		}
		if b.left(now) > 0 {
			list = append(list, b)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", l.path, err)
	}
	return list, nil
}

// write replaces the file: a crash leaves the old one or the new one.
func (l *banList) write(list []ban) error {
	var text bytes.Buffer
	for _, b := range list {
		text.Write(append(encode(b), '\n'))
	}
	f, err := os.CreateTemp(filepath.Dir(l.path), bansName+".*")
	if err != nil {
		return fmt.Errorf("the bans cannot be written: %w", err)
	}
	_, err = f.Write(text.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), l.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the bans cannot be written: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// enforceBans makes the node refuse whom the home's bans name.
func (h *house) enforceBans() error {
	h.bans.path = filepath.Join(h.home, bansName)
	now := time.Now()
	list, err := h.bans.list(now)
	if err != nil {
		return err
	}
	for _, b := range list {
		id, err := dray.ParsePeerID(b.Peer)
		if err != nil {
			return err
		}
		h.node.Ban(id, b.left(now), b.Reason)
	}
	return nil
}
