package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// journal keeps small blocks with the kernel until the next commit has put them into the index, so that they survive the
// end of the process. There are two files: while a commit empties one, the other is appended to. Each begins with the
// number of its filling; the index records the first number that still counts, so that an emptied file which a power cut
// brings back is not read again. The number is in the checksum of each record too: records of an earlier filling, behind
// those of a later one, do not count.
type journal struct {
	mu    sync.Mutex // also held while what was appended enters the pending set
	files [2]File
	ends  [2]int64
	cur   int
	seq   uint64 // of the current filling
	buf   []byte
}

// journalHead is the length of the number that a journal begins with.
const journalHead = 8

func (s *Store) journalPath(i int) string {
	return filepath.Join(s.cfg.Dir, fmt.Sprintf("journal-%d", i))
}

// appendLocked writes a record.
func (j *journal) appendLocked(mh string, data []byte) error {
	j.buf = j.buf[:0]
	if j.ends[j.cur] == 0 {
		j.buf = binary.LittleEndian.AppendUint64(j.buf, j.seq)
	}
	j.buf = append(appendHeader(j.buf, mh, data, uint32(j.seq)), data...)
	if err := writeAt(j.files[j.cur], j.buf, j.ends[j.cur]); err != nil {
		return err
	}
	j.ends[j.cur] += int64(len(j.buf))
	return nil
}

// swapLocked directs what follows to the other file, which must be empty.
func (j *journal) swapLocked() {
	j.cur = 1 - j.cur
	j.seq++
}

// record notes in a batch that only the current filling counts from now on.
func (j *journal) record(b *pebble.Batch) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return b.Set([]byte{keyJournal}, binary.BigEndian.AppendUint64(nil, j.seq), nil)
}

// empty gives back the space of the file that is not appended to.
func (j *journal) empty() error {
	j.mu.Lock()
	i := 1 - j.cur
	n := j.ends[i]
	j.ends[i] = 0
	j.mu.Unlock()
	if n == 0 {
		return nil
	}
	return j.files[i].Truncate(0)
}

// openJournal opens both files and hands use the records that count. It reports whether there was anything in them.
func (s *Store) openJournal(use func(record) error) (found bool, err error) {
	j := &s.journal
	var valid uint64
	_, err = lookup(s.db, []byte{keyJournal}, func(v []byte) error {
		if len(v) != 8 {
			return errIndex
		}
		valid = binary.BigEndian.Uint64(v)
		return nil
	})
	if err != nil {
		return false, err
	}
	j.seq = valid
	for i := range j.files {
		f, err := s.cfg.FS.Open(s.journalPath(i), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return false, err
		}
		j.files[i] = f
		var head [journalHead]byte
		if err := readFull(f, head[:], 0); err != nil {
			continue // empty
		}
		found = true
		seq := binary.LittleEndian.Uint64(head[:])
		j.seq = max(j.seq, seq)
		if seq < valid {
			continue
		}
		if _, err := scan(f, journalHead, uint32(seq), use); err != nil {
			return false, err
		}
	}
	return found, nil
}

// clear empties both files.
func (j *journal) clear() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ends = [2]int64{}
	return errors.Join(j.files[0].Truncate(0), j.files[1].Truncate(0))
}

func (j *journal) close() error {
	var errs []error
	for _, f := range j.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
