package names

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"dray"
)

// A record is written as
//
//	version  byte   1
//	kind     byte
//	flags    byte   1: private
//	name, revision  text
//	commit   20 bytes
//	block, dir      CIDs; dir may be empty
//	sequence 8 bytes
//	time, until     8 bytes each: milliseconds since 1970; until 0 is for ever
//	key      the bytes of the peer id
//	signature
//
// where texts, CIDs, the key and the signature have their length before them in two bytes, and numbers are big-endian. Signed is
// the text "dray names record 1", a zero, and all that stands before the signature.

// MaxRecord is how many bytes a record may have.
const MaxRecord = 2048

const (
	recordVersion = 1
	flagPrivate   = 1
	signedPrefix  = "dray names record 1\x00"
)

// Record says that a revision of a repository is a commit, signed by the key of whoever says so.
type Record struct {
	// Repo and Revision, a branch or a tag, are what it is about.
	Repo     Repo
	Revision string
	// Commit is the commit's id, and Block the CID of its head, see [ReadCommit].
	Commit string
	Block  cid.Cid
	// Dir is the directory of its files. It may be undefined.
	Dir cid.Cid
	// Sequence grows with each record of a key about the same revision: the greatest counts.
	Sequence uint64
	// Time is when it was signed, and Until when it ends to count; if that is zero, never. Both in whole milliseconds.
	Time, Until time.Time
	// Private says that it is for members of whoever has it, and not to be told to others.
	Private bool
	// Key is who says so.
	Key dray.PeerID
	// Signature is the key's.
	Signature []byte
}

// Signer signs for a key.
type Signer interface {
	// ID returns the key's id.
	ID() (dray.PeerID, error)
	// Sign returns the key's signature of a text.
	Sign(text []byte) ([]byte, error)
}

// Verifier says, as an error, why a signature of a text is not that of a key.
type Verifier func(key dray.PeerID, text, signature []byte) error

// ErrBadRecord means that a record is malformed or its signature is wrong.
var ErrBadRecord = errors.New("bad record")

func badRecord(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBadRecord, fmt.Errorf(format, args...))
}

// Check says, wrapping [ErrBadRecord], what is wrong with the record, save for its signature.
func (r *Record) Check() error {
	switch {
	case r.Repo.Check() != nil:
		return badRecord("%w", r.Repo.Check())
	case CheckRevision(r.Revision) != nil:
		return badRecord("%w", CheckRevision(r.Revision))
	case IsCommit(r.Revision):
		return badRecord("the revision %s looks like a commit's id", r.Revision)
	case !IsCommit(r.Commit):
		return badRecord("the commit %q is not forty hexadecimal digits", clip(r.Commit))
	case dray.CheckCID(r.Block) != nil:
		return badRecord("%w", dray.CheckCID(r.Block))
	case r.Dir.Defined() && dray.CheckCID(r.Dir) != nil:
		return badRecord("%w", dray.CheckCID(r.Dir))
	case len(r.Key) == 0 || len(r.Key) > 128:
		return badRecord("a key of %d bytes", len(r.Key))
	case len(r.Signature) > 512:
		return badRecord("a signature of %d bytes", len(r.Signature))
	case r.Time.UnixMilli() < 0 || !r.Until.IsZero() && r.Until.UnixMilli() <= 0:
		return badRecord("it was made before 1970")
	}
	return nil
}

// Over reports whether the record ends to count by now.
func (r *Record) Over(now time.Time) bool { return !r.Until.IsZero() && !now.Before(r.Until) }

// Sign makes the record say who signs it, and signs it.
func (r *Record) Sign(s Signer) error {
	id, err := s.ID()
	if err != nil {
		return err
	}
	r.Key, r.Signature = id, nil
	if err := r.Check(); err != nil {
		return err
	}
	r.Signature, err = s.Sign(r.text())
	return err
}

// Verify says, wrapping [ErrBadRecord], why the record is not what its key has signed.
func (r *Record) Verify(v Verifier) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := v(r.Key, r.text(), r.Signature); err != nil {
		return badRecord("%w", err)
	}
	return nil
}

// text returns what is signed.
func (r *Record) text() []byte { return r.body([]byte(signedPrefix)) }

// Encode returns the record as bytes.
func (r *Record) Encode() []byte {
	return appendSized(r.body(nil), string(r.Signature))
}

func (r *Record) body(dst []byte) []byte {
	var flags byte
	if r.Private {
		flags |= flagPrivate
	}
	dst = append(dst, recordVersion, byte(r.Repo.Kind), flags)
	dst = appendSized(dst, r.Repo.Name)
	dst = appendSized(dst, r.Revision)
	dst, _ = hex.AppendDecode(dst, []byte(r.Commit)) // Check has seen the digits
	dst = appendSized(dst, r.Block.KeyString())
	dst = appendSized(dst, r.Dir.KeyString())
	dst = binary.BigEndian.AppendUint64(dst, r.Sequence)
	dst = binary.BigEndian.AppendUint64(dst, millis(r.Time))
	dst = binary.BigEndian.AppendUint64(dst, millis(r.Until))
	return appendSized(dst, string(r.Key))
}

func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMilli())
}

func appendSized(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// ParseRecord reads what Encode wrote. The record keeps nothing of data. It does not look at the signature: see Verify. The
// error wraps [ErrBadRecord].
func ParseRecord(data []byte) (*Record, error) {
	if len(data) > MaxRecord {
		return nil, badRecord("%d bytes are more than %d", len(data), MaxRecord)
	}
	s := scanner{rest: data}
	r := new(Record)
	if v := s.byte(); v != recordVersion {
		return nil, badRecord("version %d is not known here", v)
	}
	r.Repo.Kind = Kind(s.byte())
	flags := s.byte()
	r.Private = flags&flagPrivate != 0
	r.Repo.Name = string(s.sized())
	r.Revision = string(s.sized())
	r.Commit = hex.EncodeToString(s.take(20))
	r.Block = s.cid()
	r.Dir = s.cid()
	r.Sequence = s.uint64()
	r.Time = s.time()
	r.Until = s.time()
	r.Key = dray.PeerID(s.sized())
	r.Signature = append([]byte(nil), s.sized()...)
	switch {
	case s.bad || len(s.rest) > 0:
		return nil, badRecord("it is not whole, or more than one")
	case flags&^flagPrivate != 0:
		return nil, badRecord("flags %x are not known here", flags)
	}
	return r, r.Check()
}

// scanner reads what a record is made of. After something that is not whole it returns zeros.
type scanner struct {
	rest []byte
	bad  bool
}

func (s *scanner) take(n int) []byte {
	if n > len(s.rest) {
		s.bad, s.rest = true, nil
		return make([]byte, min(n, 32))
	}
	b := s.rest[:n]
	s.rest = s.rest[n:]
	return b
}

func (s *scanner) byte() byte     { return s.take(1)[0] }
func (s *scanner) uint64() uint64 { return binary.BigEndian.Uint64(s.take(8)) }

func (s *scanner) sized() []byte {
	n := int(binary.BigEndian.Uint16(s.take(2)))
	if n > len(s.rest) {
		s.bad, s.rest = true, nil
		return nil
	}
	return s.take(n)
}

func (s *scanner) cid() cid.Cid {
	b := s.sized()
	if len(b) == 0 {
		return cid.Undef
	}
	c, err := cid.Cast(b)
	if err != nil || c.ByteLen() != len(b) {
		s.bad = true
		return cid.Undef
	}
	return c
}

func (s *scanner) time() time.Time {
	n := s.uint64()
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(min(n, 1<<53))).UTC()
}

// What one peer asks another of a repository, on a stream of the protocol "/dray/names/1":
//
//	question  kind byte, name, revision         texts with their length in two bytes before them
//	answer    count byte, then so many records  each with its length in two bytes before it
//
// The question's and the answer's length stand before them in four bytes.

// MaxAnswer is how many records an answer may have.
const MaxAnswer = 16

// Question asks which records there are about a revision of a repository: a branch, a tag, or a commit's id.
type Question struct {
	Repo     Repo
	Revision string
}

// MaxQuestion and MaxAnswerBytes bound what is sent.
const (
	MaxQuestion    = 512
	MaxAnswerBytes = 1 + MaxAnswer*(2+MaxRecord)
)

// Encode returns the question as bytes.
func (q *Question) Encode() []byte {
	return appendSized(appendSized([]byte{byte(q.Repo.Kind)}, q.Repo.Name), q.Revision)
}

// ParseQuestion reads a question. The error wraps [ErrBadRecord] or [ErrBadName].
func ParseQuestion(data []byte) (Question, error) {
	s := scanner{rest: data}
	q := Question{Repo: Repo{Kind: Kind(s.byte()), Name: string(s.sized())}, Revision: string(s.sized())}
	if s.bad || len(s.rest) > 0 {
		return q, badRecord("a question that is not whole")
	}
	return q, errors.Join(q.Repo.Check(), CheckRevision(q.Revision))
}

// EncodeAnswer returns records as the answer to a question: at most [MaxAnswer] of them.
func EncodeAnswer(records []*Record) []byte {
	records = records[:min(len(records), MaxAnswer)]
	dst := []byte{byte(len(records))}
	for _, r := range records {
		dst = appendSized(dst, string(r.Encode()))
	}
	return dst
}

// ParseAnswer reads an answer to q. Records that are about something else are an error; signatures are not looked at.
func ParseAnswer(q *Question, data []byte) ([]*Record, error) {
	s := scanner{rest: data}
	n := int(s.byte())
	if n > MaxAnswer {
		return nil, badRecord("an answer of %d records", n)
	}
	var list []*Record
	for range n {
		r, err := ParseRecord(s.sized())
		switch {
		case err != nil:
			return nil, err
		case !r.Answers(q):
			return nil, badRecord("an answer about %v at %s", r.Repo, r.Revision)
		}
		list = append(list, r)
	}
	if s.bad || len(s.rest) > 0 {
		return nil, badRecord("an answer that is not whole")
	}
	return list, nil
}

// Answers reports whether the record is about what was asked.
func (r *Record) Answers(q *Question) bool {
	if IsCommit(q.Revision) {
		return r.Repo == q.Repo && r.Commit == q.Revision
	}
	return r.Repo == q.Repo && r.Revision == q.Revision
}
