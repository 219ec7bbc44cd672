package node

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"dray"
	"dray/exchange"
)

// The ledger's file is text, so that an operator can look at it:
//
//	dray ledger 1
//	PEER SENT RECEIVED DUPLICATE SEEN       one line per peer, bytes and seconds since 1970
//	end COUNT CHECKSUM                      CRC-32C of all before this line
//
// It is replaced as a whole, so it is the old one or the new one. One that is anything else is not used at all.

const (
	ledgerHead  = "dray ledger 1\n"
	ledgerEvery = time.Minute
	// maxLedgerLine is more than the longest id and four numbers take.
	maxLedgerLine = 256
	maxLedgerFile = exchange.MaxAccounts*maxLedgerLine + 256
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Ledger is a file that keeps what passed between this host and each peer, from one run to the next. A Node that is
// made with one in its [Config] writes it every minute and when it is closed. It belongs to one Node.
type Ledger struct {
	path  string
	kept  []account
	wrote uint32 // checksum of what the file holds
}

// account is one peer's, with the time of day.
type account struct {
	peer dray.PeerID
	exchange.Account
	seen time.Time
}

// OpenLedger reads the ledger at path. When the file cannot be read or is not whole it returns an empty ledger, which
// will take its place, and an error that says what is wrong with it. A file that is not there is an empty ledger and no
// error.
func OpenLedger(path string) (*Ledger, error) {
	l := &Ledger{path: path}
	text, err := readLedger(path)
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		l.kept, err = parseLedger(text)
	}
	if err != nil {
		return l, &dray.Error{Op: "read the ledger", Err: fmt.Errorf("%s: %w", path, err)}
	}
	l.wrote = crc32.Checksum(text, castagnoli)
	return l, nil
}

func readLedger(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLedgerFile+1))
	if err == nil && len(text) > maxLedgerFile {
		err = fmt.Errorf("it is longer than %d bytes", maxLedgerFile)
	}
	return text, err
}

func parseLedger(text []byte) ([]account, error) {
	if !bytes.HasPrefix(text, []byte(ledgerHead)) {
		return nil, errors.New("it does not begin like a ledger")
	}
	const mark = "\nend "
	end := bytes.LastIndex(text, []byte(mark)) + 1
	if end == 0 {
		return nil, errors.New("its end is missing")
	}
	count, sum, _ := strings.Cut(strings.TrimSuffix(string(text[end-1+len(mark):]), "\n"), " ")
	body := text[:end]
	if want, err := strconv.ParseUint(sum, 16, 32); err != nil || crc32.Checksum(body, castagnoli) != uint32(want) {
		return nil, errors.New("its checksum is wrong")
	}
	var out []account
	for line := range strings.Lines(string(body[len(ledgerHead):])) {
		a, err := parseAccount(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(out)+2, err)
		}
		if out = append(out, a); len(out) > exchange.MaxAccounts {
			return nil, fmt.Errorf("it has more than %d peers", exchange.MaxAccounts)
		}
	}
	if strconv.Itoa(len(out)) != count {
		return nil, fmt.Errorf("it has %d peers and says %s", len(out), count)
	}
	return out, nil
}

func parseAccount(line string) (account, error) {
	f := strings.Split(line, " ")
	if len(f) != 5 {
		return account{}, fmt.Errorf("%d words in place of 5", len(f))
	}
	peer, err := dray.ParsePeerID(f[0])
	if err != nil {
		return account{}, err
	}
	var n [4]int64
	for i := range n {
		if n[i], err = strconv.ParseInt(f[1+i], 10, 64); err != nil || n[i] < 0 {
			return account{}, fmt.Errorf("%q is no count", f[1+i])
		}
	}
	return account{peer, exchange.Account{Sent: n[0], Received: n[1], Duplicate: n[2]}, time.Unix(n[3], 0)}, nil
}

func appendLedger(buf []byte, list []account) []byte {
	buf = append(buf, ledgerHead...)
	for _, a := range list {
		buf = fmt.Appendf(buf, "%s %d %d %d %d\n", a.peer, a.Sent, a.Received, a.Duplicate, max(a.seen.Unix(), 0))
	}
	return fmt.Appendf(buf, "end %d %08x\n", len(list), crc32.Checksum(buf, castagnoli))
}

// write replaces the file, unless it holds the same already.
func (l *Ledger) write(list []account) error {
	list = list[max(len(list)-exchange.MaxAccounts, 0):] // more than that are only kept of peers that are connected
	text := appendLedger(nil, list)
	sum := crc32.Checksum(text, castagnoli)
	if sum == l.wrote {
		return nil
	}
	fresh := l.path + ".new" // one that a crash left is written over
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(fresh, l.path)
	}
	if err != nil {
		return err
	}
	l.wrote = sum
	return nil
}

// restore gives the engine what the ledger holds. Called before the loop runs.
func (n *Node) restore(l *Ledger) {
	for _, a := range l.kept {
		a.Seen = a.seen.Sub(n.start)
		n.engine.SetAccount(a.peer, a.Account)
	}
	l.kept = nil
}

// accounts lists what the engine has. Called on the loop, or after it has ended.
func (n *Node) accounts() []account {
	var out []account
	for id, a := range n.engine.Accounts {
		out = append(out, account{id, a, n.start.Add(a.Seen)})
	}
	return out
}

// keepLedger writes the ledger every minute, and when the loop has ended.
func (n *Node) keepLedger(l *Ledger) {
	t := time.NewTicker(ledgerEvery)
	defer t.Stop()
	for {
		var list []account
		last := false
		select {
		case <-n.ended:
			last = true
		case <-t.C:
			last = !n.ask(func() { list = n.accounts() })
		}
		if last {
			<-n.ended
			list = n.accounts() // the loop's while it ran
		}
		if err := l.write(list); err != nil {
			n.cfg.Log.Warn("cannot write the ledger", "path", l.path, "err", err)
		}
		if last {
			return
		}
	}
}
