package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// A record, in segments and in the journal, is a header, the block's multihash and the block. The header is, least
// significant byte first: magic (4), length of the multihash (4), length of the block (4), CRC-32C of the block (4),
// CRC-32C of what comes before and of the multihash (4), which in a journal begins from the filling's number. A header that checks out tells where the next record is even if
// the block itself is torn.
const (
	recordMagic = 0x79617264 // "dray"
	headerSize  = 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader appends a record's header and multihash.
func appendHeader(dst []byte, mh string, data []byte, seed uint32) []byte {
	n := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, recordMagic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(mh)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(data)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(data, castagnoli))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = append(dst, mh...)
	binary.LittleEndian.PutUint32(dst[n+16:], headerSum(seed, dst[n:n+16], dst[n+headerSize:]))
	return dst
}

func headerSum(seed uint32, fields, mh []byte) uint32 {
	return crc32.Update(crc32.Update(seed, castagnoli, fields), castagnoli, mh)
}

// record is one that was found by scan.
type record struct {
	mh   string
	off  int64 // of the block's bytes
	size int64
	data []byte // valid until the next record is read
}

// scan reads the records of f from off on and calls use for each whole one. It returns where the last record with a sound
// header ends. A record whose block is torn is passed over.
func scan(f File, off int64, seed uint32, use func(record) error) (end int64, err error) {
	var head [headerSize + maxKey]byte
	var buf []byte
	for {
		n, err := f.ReadAt(head[:], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return off, err
		}
		if n < headerSize || binary.LittleEndian.Uint32(head[:]) != recordMagic {
			return off, nil
		}
		mhLen, size := int(binary.LittleEndian.Uint32(head[4:])), int64(binary.LittleEndian.Uint32(head[8:]))
		if mhLen == 0 || mhLen > maxKey || headerSize+mhLen > n {
			return off, nil
		}
		mh := head[headerSize : headerSize+mhLen]
		if headerSum(seed, head[:16], mh) != binary.LittleEndian.Uint32(head[16:]) {
			return off, nil
		}
		r := record{mh: string(mh), off: off + int64(headerSize+mhLen), size: size}
		if int64(cap(buf)) < size {
			buf = make([]byte, size)
		}
		r.data = buf[:size]
		m, err := f.ReadAt(r.data, r.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return off, err
		}
		if int64(m) == size && crc32.Checksum(r.data, castagnoli) == binary.LittleEndian.Uint32(head[12:]) {
			if err := use(r); err != nil {
				return off, err
			}
		}
		off = r.off + size
	}
}

// segmentCount is what the index records of a segment.
type segmentCount struct {
	// synced is the offset up to which every record is in the index or dead. What lies beyond is scanned when the store is
	// opened.
	synced int64
	// live is the bytes of the blocks that the index still finds here.
	live int64
}

// segments appends blocks to segment files.
type segments struct {
	mu     sync.Mutex
	active *openFile // pinned; nil until the first block is written
	number uint64    // of the active segment, or of the last one there was
	end    int64     // where the next record goes
	flight []flight  // records that are reserved, and not yet in the pending set

	// count is guarded by Store.indexMu.
	count map[uint64]segmentCount
}

type flight struct {
	segment uint64
	off     int64
}

func (s *Store) segmentPath(n uint64) string {
	return filepath.Join(s.cfg.Dir, "segments", fmt.Sprintf("%016x.seg", n))
}

// appendSegment writes a block to the active segment. The caller calls landed with the returned place once it is in the
// pending set.
func (s *Store) appendSegment(mh string, data []byte) (place, flight, error) {
	var room [headerSize + maxKey]byte
	head := appendHeader(room[:0], mh, data, 0)
	total := int64(len(head) + len(data))

	g := &s.segs
	g.mu.Lock()
	if g.active == nil || g.end+total > s.cfg.SegmentSize && g.end > 0 {
		if err := s.rotateLocked(); err != nil {
			g.mu.Unlock()
			return place{}, flight{}, err
		}
	}
	f, fl := g.active, flight{segment: g.number, off: g.end}
	// The header is written before the next record can be: so the headers up to any whole record are sound, and a scan
	// reaches it even if the process dies while an earlier block is being written.
	if err := writeAt(f.file, head, fl.off); err != nil {
		g.mu.Unlock()
		return place{}, flight{}, err
	}
	g.end += total
	g.flight = append(g.flight, fl)
	s.files.pin(f, 1)
	g.mu.Unlock()

	err := writeAt(f.file, data, fl.off+int64(len(head)))
	s.files.pin(f, -1)
	if err != nil {
		s.landed(fl)
		return place{}, flight{}, err
	}
	return place{kind: inSegment, id: fl.segment, off: fl.off + int64(len(head)), size: int64(len(data))}, fl, nil
}

// landed says that a record is in the pending set, or will never be.
func (s *Store) landed(fl flight) {
	g := &s.segs
	g.mu.Lock()
	for i := range g.flight {
		if g.flight[i] == fl {
			g.flight[i] = g.flight[len(g.flight)-1]
			g.flight = g.flight[:len(g.flight)-1]
			break
		}
	}
	g.mu.Unlock()
}

// rotateLocked begins a new segment.
func (s *Store) rotateLocked() error {
	g := &s.segs
	n := g.number + 1
	file, err := s.cfg.FS.Open(s.segmentPath(n), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := s.cfg.FS.SyncDir(filepath.Join(s.cfg.Dir, "segments")); err != nil {
		file.Close()
		return err
	}
	f := s.files.insert(&openFile{id: n | segmentBit, file: file, pinned: 1})
	s.files.release(f)
	if g.active != nil {
		s.files.pin(g.active, -1)
	}
	g.active, g.number, g.end = f, n, 0
	return nil
}

// settled returns the offset in segment n before which every record is in the pending set or dead.
func (g *segments) settled(n uint64, size func() int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	end := g.end
	if n != g.number || g.active == nil {
		end = size()
	}
	for _, fl := range g.flight {
		if fl.segment == n {
			end = min(end, fl.off)
		}
	}
	return end
}

// writeAt writes all of b; a short write without a reason is an error too.
func writeAt(f File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}
