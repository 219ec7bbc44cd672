package dray

import (
	"errors"
	"strings"

	"github.com/ipfs/go-cid"
)

// The causes that callers tell apart with [errors.Is]. Each maps to one exit code of the command line.
var (
	// ErrNotFound means that nobody asked has the block, or that a name or path does not exist.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt means that bytes do not hash to the CID they are filed under.
	ErrCorrupt = errors.New("corrupt")
	// ErrChanged means that a file which holds referenced blocks was changed, moved or removed since it was indexed.
	ErrChanged = errors.New("file changed")
	// ErrUnreachable means that no peer could be reached.
	ErrUnreachable = errors.New("unreachable")
	// ErrTimeout means that a deadline passed before the work was done.
	ErrTimeout = errors.New("timed out")
	// ErrNoSpace means that the disk is full. Nothing that was durable is lost; the same call continues once there is room.
	ErrNoSpace = errors.New("no space left on the disk")
	// ErrRefused means that a peer does not accept the proof that this host may have a root: it was revoked, or is another's.
	ErrRefused = errors.New("refused")
	// ErrBadCID means that a CID is malformed or uses a hash that is not allowed.
	ErrBadCID = errors.New("bad CID")
	// ErrTooBig means that a block is larger than [MaxBlockSize].
	ErrTooBig = errors.New("block too big")
	// ErrClosed means that the object was closed before or during the call.
	ErrClosed = errors.New("closed")
)

// Error says what failed on which block and with whom. Fields that do not apply are zero. Test the cause with
// [errors.Is].
type Error struct {
	// Op is what was being done, such as "get" or "verify".
	Op string
	// CID is the block or root that it was done to.
	CID cid.Cid
	// Peer is the peer that it was done with.
	Peer PeerID
	// Err is the cause; it is never nil.
	Err error
}

// Error returns "op CID from PEER: cause", leaving out what is not set.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.CID.Defined() {
		b.WriteByte(' ')
		b.WriteString(e.CID.String())
	}
	if e.Peer != "" {
		b.WriteString(" from ")
		b.WriteString(e.Peer.String())
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
