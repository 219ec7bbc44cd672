package edge

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The table of objects is written when the Edge is closed, and a while after it changed. After a kill it may be older
// than the leaves: then objects are asked for again. Leaves that no object of it refers to are used if the same bytes
// come again, and else evicted in their turn.

// saveAfter is how long after a change the table is written.
const saveAfter = 30 * time.Second

// row is an object in the table.
type row struct {
	Group  string            `json:"group"`
	Path   string            `json:"path"`
	Query  string            `json:"query,omitempty"`
	Source string            `json:"source"`
	Meta   meta              `json:"meta"`
	Size   int64             `json:"size"`
	Made   time.Time         `json:"made"`
	Lease  lease             `json:"lease"`
	Leaves map[string]string `json:"leaves"` // by offset in bytes, the multihash in hexadecimal
}

// touched has the table written, after a while. The caller holds mu.
func (e *Edge) touched() {
	if e.saving == nil && !e.closed {
		e.saving = time.AfterFunc(saveAfter, func() {
			e.mu.Lock()
			e.saving = nil
			ok := e.spawn(func() {
				if err := e.save(); err != nil {
					e.cfg.Log.Warn("the edge's table of objects cannot be written", "error", err)
				}
			})
			_ = ok // when it is closed, Close writes
			e.mu.Unlock()
		})
	}
}

func (e *Edge) tablePath() string { return filepath.Join(e.cfg.Dir, "objects.json") }

// save writes the table, least recently used first.
func (e *Edge) save() error {
	e.mu.Lock()
	rows := make([]row, 0, e.recent.Len())
	for x := e.recent.Back(); x != nil; x = x.Prev() {
		o := x.Value.(*object)
		if o.pass || o.size < 0 {
			continue
		}
		r := row{
			Group: o.group.name, Path: o.path, Query: o.query, Source: o.server.Source.URL,
			Meta: o.meta, Size: o.size, Made: o.made,
			Lease: o.lease, Leaves: make(map[string]string, len(o.leaves)),
		}
		for seg, key := range o.leaves {
			r.Leaves[strconv.FormatInt(seg*e.cfg.Segment, 10)] = hex.EncodeToString([]byte(key))
		}
		rows = append(rows, r)
	}
	e.mu.Unlock()
	f, err := os.CreateTemp(e.cfg.Dir, "objects-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for i := range rows {
		if err := enc.Encode(&rows[i]); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), e.tablePath())
}

// load reads the table. Lines that cannot be read, and objects of origins that are not in the settings any more, are
// left out.
func (e *Edge) load() error {
	old, _ := filepath.Glob(filepath.Join(e.cfg.Dir, "objects-*.tmp"))
	for _, path := range old {
		_ = os.Remove(path) // what a kill left
	}
	f, err := os.Open(e.tablePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	dec := json.NewDecoder(bufio.NewReader(f))
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		var r row
		if err := dec.Decode(&r); err != nil {
			return nil // its end, or what cannot be read: it is asked for again
		}
		if o := e.object(&r); o != nil {
			e.insert(o)
		}
	}
}

// object makes an object of a row, or nil if it is of no use.
func (e *Edge) object(r *row) *object {
	g := e.groups[r.Group]
	if g == nil || g.blocks != nil || strings.Contains(r.Path, "\x00") {
		return nil
	}
	o := &object{
		key: r.Group + "/" + r.Path, group: g, path: r.Path, query: r.Query,
		meta: r.Meta, size: r.Size, made: r.Made, lease: r.Lease,
		leaves: make(map[int64]string), server: g.servers[0],
	}
	if r.Query != "" {
		o.key += "?" + r.Query
	}
	for _, v := range g.servers {
		if v.Source.URL == r.Source {
			o.server = v
		}
	}
	for at, key := range r.Leaves {
		off, oerr := strconv.ParseInt(at, 10, 64)
		b, err := hex.DecodeString(key)
		if oerr == nil && err == nil && off >= 0 && off%e.cfg.Segment == 0 && e.hoard.name(string(b)) {
			o.leaves[off/e.cfg.Segment] = string(b)
		}
	}
	return o
}
