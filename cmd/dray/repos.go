package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
	"dray/exchange"
	"dray/hub"
	"dray/names"
	"dray/node"
	"dray/store/disk"
	"dray/transport"
	"dray/transport/p2p"
)

// What a home knows of repositories: the records in its file, who is trusted, and how peers are asked.

const (
	reposName = "repos.json"
	trustName = "trust"

	namesProtocol = transport.Protocol("/dray/names/1")
	namesTime     = 5 * time.Second // that a question and its answer may take on a stream
	mostAsked     = 64              // peers that are asked at once
	flushAfter    = 2 * time.Second // what was learnt is written
)

// repos belong to a house.
type repos struct {
	h         *house
	published *hub.Published

	trustMu sync.Mutex   // guards the next three; published may be locked when it is taken
	extra   []names.Rule // of the settings and of flags, which come after the home's own key
	stamp   stamp        // of the trust file that was read last
	trust   *names.Trust

	saving     sync.Mutex // held while the records are written
	publishing sync.Mutex // held while a name is given or taken back

	mu    sync.Mutex // guards what follows, up to ctx
	fetch map[cid.Cid]*bringing
	roots map[cid.Cid]int64 // what came whole and is to be recorded as a root, with its size
	dirty bool              // records are to be written
	ctx   context.Context   // of what is brought; nil before begin

	flush chan struct{} // has one slot: there is something to write
	wg    sync.WaitGroup
	key   p2p.Key
}

// openRepos reads what a home knows of repositories. It needs the house's key only when there is a network.
func openRepos(h *house, network bool) (*repos, error) {
	r := &repos{h: h, fetch: make(map[cid.Cid]*bringing), roots: make(map[cid.Cid]int64), flush: make(chan struct{}, 1)}
	var self dray.PeerID
	if network {
		key, err := p2p.LoadKey(keyPath(h.home))
		if err != nil {
			return nil, err
		}
		if self, err = key.ID(); err != nil {
			return nil, err
		}
		r.key = key
	}
	r.published = hub.NewPublished(hub.PublishedConfig{
		Swarm: r, Verify: p2p.Verify, Trust: r.trusted, Self: self, Changed: r.changed,
		Closed: func(root cid.Cid) bool { _, closed := h.door.rule(root); return closed },
	})
	if _, err := readTrust(h.home); err != nil {
		return nil, err
	}
	records, err := readRecords(h.home)
	if err != nil {
		return nil, err
	}
	r.published.Learn(records...)
	return r, nil
}

func (r *repos) service() node.Service {
	return node.Service{Protocol: namesProtocol, Serve: r.answer}
}

// self returns the home's own key, or "".
func (r *repos) self() dray.PeerID {
	id, err := r.key.ID()
	if err != nil {
		return ""
	}
	return id
}

// recordFile is the file of records.
type recordFile struct {
	// Records are as package names writes them, in base64.
	Records []string `json:"records"`
}

func reposPath(home string) string { return filepath.Join(home, reposName) }

func readRecords(home string) ([]*names.Record, error) {
	text, err := os.ReadFile(reposPath(home))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var f recordFile
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	var list []*names.Record
	for _, s := range f.Records {
		data, derr := base64.StdEncoding.DecodeString(s)
		if derr == nil {
			var r *names.Record
			if r, derr = names.ParseRecord(data); derr == nil {
				list = append(list, r)
			}
		}
		err = errors.Join(err, derr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, which says what was published here, cannot be read: %w; restore it, or remove it and share "+
			"again", reposPath(home), err)
	}
	return list, nil
}

// save writes the records.
func (r *repos) save() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	f := recordFile{Records: []string{}}
	for _, x := range r.published.Records() {
		f.Records = append(f.Records, base64.StdEncoding.EncodeToString(x.Encode()))
	}
	if len(f.Records) == 0 {
		if _, err := os.Stat(reposPath(r.h.home)); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return replaceFile(reposPath(r.h.home), append(encode(f), '\n'), 0o600)
}

// changed has the records written soon.
func (r *repos) changed() {
	r.mu.Lock()
	r.dirty = true
	r.mu.Unlock()
	r.wake()
}

func (r *repos) wake() {
	select {
	case r.flush <- struct{}{}:
	default: // it will look anyhow
	}
}

// begin brings files and writes what is learnt, until the returned function is called.
func (r *repos) begin() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	r.mu.Lock()
	r.ctx = ctx
	r.mu.Unlock()
	ended := watch(func(done <-chan struct{}) {
		for {
			select {
			case <-r.flush:
			case <-done:
				r.write()
				return
			}
			t := time.NewTimer(flushAfter)
			select {
			case <-t.C:
			case <-done:
			}
			t.Stop()
			r.write()
		}
	})
	return func() {
		r.mu.Lock()
		r.ctx = nil
		r.mu.Unlock()
		cancel()
		r.wg.Wait()
		ended()
	}
}

// write records roots and records that wait.
func (r *repos) write() {
	r.mu.Lock()
	dirty, roots := r.dirty, r.roots
	r.dirty, r.roots = false, make(map[cid.Cid]int64)
	r.mu.Unlock()
	err := r.h.rememberBrought(context.Background(), roots)
	if dirty {
		err = errors.Join(err, r.save())
	}
	if err != nil && !r.h.isStopping() {
		r.h.env.log().Warn("cannot note what came of repositories", "err", err)
	}
}

// rememberBrought records roots that were brought into the store, unless they are recorded.
func (h *house) rememberBrought(ctx context.Context, roots map[cid.Cid]int64) error {
	if len(roots) == 0 {
		return nil
	}
	h.rootsMu.Lock()
	defer h.rootsMu.Unlock()
	fresh := false
	for c, size := range roots {
		_, err := h.store.Root(ctx, c)
		if err == nil || !errors.Is(err, dray.ErrNotFound) {
			continue
		}
		if err := h.store.SetRoot(ctx, disk.Root{CID: c, Size: size, Mode: disk.Once, Added: time.Now().UTC()}); err != nil {
			return err
		}
		fresh = true
	}
	if !fresh {
		return nil
	}
	h.changes.Add(1)
	return errors.Join(h.store.Sync(ctx), h.door.rootsChanged(ctx))
}

// brought notes that all under a root is here.
func (r *repos) brought(root cid.Cid, size int64) {
	r.mu.Lock()
	r.roots[root] = size
	r.mu.Unlock()
	r.wake()
}

func trustPath(home string) string { return filepath.Join(home, trustName) }

// readTrust reads a home's trust file; no file is no trust.
func readTrust(home string) (*names.Trust, error) {
	text, err := trustText(home)
	if err != nil {
		return nil, err
	}
	t, err := names.ParseTrust(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", trustPath(home), err)
	}
	return t, nil
}

func trustText(home string) ([]byte, error) {
	info, err := os.Stat(trustPath(home))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > names.MaxTrustFile:
		return nil, fmt.Errorf("%s has %d bytes, more than %d", trustPath(home), info.Size(), names.MaxTrustFile)
	}
	return os.ReadFile(trustPath(home))
}

// trusted returns who is believed now: the home's own key first, then those that the settings and flags name, then those in the
// file. A file with a mistake changes nothing.
func (r *repos) trusted() *names.Trust {
	now := stampOf(trustPath(r.h.home))
	r.trustMu.Lock()
	defer r.trustMu.Unlock()
	if r.trust != nil && now == r.stamp {
		return r.trust
	}
	file, err := readTrust(r.h.home)
	r.stamp = now
	if err != nil {
		fmt.Fprintf(r.h.env.stderr, "dray: %s; what was trusted before is trusted still\n", oneLine(err))
		if r.trust != nil {
			return r.trust
		}
		file = new(names.Trust)
	}
	t := new(names.Trust)
	if id := r.self(); id != "" {
		t.Rules = append(t.Rules, names.Rule{Key: id})
	}
	t.Rules = append(append(t.Rules, r.extra...), file.Rules...)
	r.trust = t
	return t
}

// trustAlso trusts keys that the settings name.
func (r *repos) trustAlso(list []string) error {
	var rules []names.Rule
	for _, s := range list {
		x, err := names.ParseRule(s)
		if err != nil {
			return usagef("bad trust: %w", err)
		}
		rules = append(rules, x)
	}
	r.trustMu.Lock()
	defer r.trustMu.Unlock()
	r.extra, r.trust = rules, nil
	return nil
}

// answer answers a peer's question.
func (r *repos) answer(_ context.Context, peer dray.PeerID, s transport.Stream) {
	_ = s.SetReadDeadline(time.Now().Add(namesTime))
	_ = s.SetWriteDeadline(time.Now().Add(namesTime))
	text, err := readSized(s, names.MaxQuestion)
	if err != nil {
		s.Reset()
		return
	}
	q, err := names.ParseQuestion(text)
	if err != nil {
		s.Reset()
		return
	}
	// What is for members here is told to members; what is for holders of tickets to nobody, because names are no tickets.
	may := func(x *names.Record) bool {
		rule, closed := r.h.door.rule(x.Block)
		return r.h.door.isMember(peer) && (!closed || rule.Members)
	}
	if writeSized(s, names.EncodeAnswer(r.published.Answer(&q, may))) != nil {
		s.Reset()
		return
	}
	s.Close()
}

// isMember reports whether a peer is a member.
func (d *door) isMember(id dray.PeerID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.members != nil && d.members.Has(id)
}

func readSized(r io.Reader, most int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > uint32(most) {
		return nil, fmt.Errorf("%d bytes, more than %d", n, most)
	}
	text := make([]byte, n)
	_, err := io.ReadFull(r, text)
	return text, err
}

func writeSized(w io.Writer, text []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

// Ask implements [hub.Swarm].
func (r *repos) Ask(ctx context.Context, q *names.Question, heard func(dray.PeerID, []*names.Record)) {
	if r.h.net == nil {
		return
	}
	peers := r.h.finders.lasting()
	for _, p := range r.h.node.Peers() {
		if !slices.ContainsFunc(peers, func(o transport.Peer) bool { return o.ID == p.ID }) {
			peers = append(peers, transport.Peer{ID: p.ID})
		}
	}
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for _, p := range peers[:min(len(peers), mostAsked)] {
		wg.Go(func() {
			records, err := r.askOne(ctx, p, q)
			if err != nil {
				r.h.env.log().Debug("a peer does not say what it knows of a repository", "peer", p.ID, "repo", q.Repo.String(), "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			heard(p.ID, records)
		})
	}
	wg.Wait()
}

func (r *repos) askOne(ctx context.Context, p transport.Peer, q *names.Question) ([]*names.Record, error) {
	s, err := r.h.node.Call(ctx, p, namesProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	if err := writeSized(s, q.Encode()); err != nil {
		return nil, err
	}
	text, err := readSized(s, names.MaxAnswerBytes)
	if err != nil {
		return nil, err
	}
	return names.ParseAnswer(q, text)
}

// Blocks implements [hub.Swarm].
func (r *repos) Blocks(ctx context.Context, root cid.Cid, from []dray.PeerID, use func(context.Context, dray.Getter) error) error {
	ctx, a, err := r.h.ask(ctx, target{root: root, peers: r.reachable(from)}, exchange.InOrder)
	if err != nil {
		return err
	}
	defer a.close()
	counted := &counting{g: a.session}
	if err := use(ctx, counted); err != nil {
		return a.explain(ctx, err)
	}
	r.brought(root, counted.bytes) // which changes nothing if it is a root already
	return nil
}

// counting counts what a Getter gets, for one goroutine.
type counting struct {
	g     dray.Getter
	bytes int64
}

func (c *counting) Get(ctx context.Context, k cid.Cid) (dray.Block, error) {
	b, err := c.g.Get(ctx, k)
	c.bytes += int64(b.Size())
	return b, err
}

// reachable returns those of some peers who are connected, or whose addresses the user has named: nobody else is waited for.
func (r *repos) reachable(ids []dray.PeerID) []transport.Peer {
	connected, lasting := r.h.node.Peers(), r.h.finders.lasting()
	var peers []transport.Peer
	for _, id := range ids {
		if i := slices.IndexFunc(lasting, func(p transport.Peer) bool { return p.ID == id }); i >= 0 {
			peers = append(peers, lasting[i])
		} else if slices.ContainsFunc(connected, func(p node.PeerStatus) bool { return p.ID == id }) {
			peers = append(peers, transport.Peer{ID: id})
		}
	}
	return peers
}
