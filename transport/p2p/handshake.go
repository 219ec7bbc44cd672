package p2p

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"dray/transport"
)

// The messages by which two hosts agree on a bulk connection; docs/data-plane.md has them byte by byte. Numbers are big
// endian.

// bulkProtocol is the id of the stream on which a bulk connection is asked for.
const bulkProtocol = "/dray/bulk/1"

// bulkMagic is how a bulk connection begins. Its first byte tells it from libp2p's 0x13 and from TLS, HTTP and SSH.
const bulkMagic = "\xd7dray\x01\r\n"

// token is a secret that is made for one connection and shown on it once.
type token [32]byte

func newToken() token {
	var t token
	_, _ = rand.Read(t[:]) // never fails
	return t
}

func (t *token) equal(o *token) bool { return subtle.ConstantTimeCompare(t[:], o[:]) == 1 }

// bulkRequest asks the other side for a bulk connection.
type bulkRequest struct {
	// clear says that the requester is content with a connection in clear.
	clear bool
	// number names the connection for the side that accepts it; 0 if that is not the requester.
	number uint64
	// want is what the requester wants to be shown on the connection.
	want     token
	protocol transport.Protocol
}

// bulkAnswer is the reply to a bulkRequest. All but code is zero unless code is answerYes.
type bulkAnswer struct {
	code byte
	// clear says that the connection is in clear. It needs both sides' consent.
	clear bool
	// number names the connection for the side that accepts it; 0 if that is the requester.
	number uint64
	// want is what the answerer wants to be shown on the connection.
	want token
}

const (
	answerYes     = 0 // go on
	answerTooMany = 1 // there are enough connections
	answerRefused = 2 // the protocol is not spoken here
)

const (
	flagClear = 1 << 0

	requestHead = 1 + 8 + len(token{}) + 1
	answerBytes = 1 + 1 + 8 + len(token{})
	helloBytes  = len(bulkMagic) + 8 + len(token{})
	maxProtocol = 255
)

// errMalformed means that the other side did not keep to docs/data-plane.md.
var errMalformed = errors.New("malformed bulk handshake")

func flags(clear bool) byte {
	if clear {
		return flagClear
	}
	return 0
}

func readFlags(b byte) (clear bool, err error) {
	if b&^flagClear != 0 {
		return false, fmt.Errorf("%w: unknown flags %#x", errMalformed, b)
	}
	return b&flagClear != 0, nil
}

func (q *bulkRequest) append(b []byte) ([]byte, error) {
	if len(q.protocol) == 0 || len(q.protocol) > maxProtocol {
		return b, fmt.Errorf("%w: a protocol id of %d bytes", transport.ErrRefused, len(q.protocol))
	}
	b = append(b, flags(q.clear))
	b = binary.BigEndian.AppendUint64(b, q.number)
	b = append(b, q.want[:]...)
	b = append(b, byte(len(q.protocol)))
	return append(b, q.protocol...), nil
}

func readRequest(r io.Reader) (q bulkRequest, err error) {
	var b [requestHead + maxProtocol]byte
	if _, err = io.ReadFull(r, b[:requestHead]); err != nil {
		return q, unexpected(err)
	}
	if q.clear, err = readFlags(b[0]); err != nil {
		return q, err
	}
	q.number = binary.BigEndian.Uint64(b[1:])
	copy(q.want[:], b[9:])
	n := int(b[requestHead-1])
	if n == 0 {
		return q, fmt.Errorf("%w: an empty protocol id", errMalformed)
	}
	id := b[requestHead : requestHead+n]
	if _, err = io.ReadFull(r, id); err != nil {
		return q, unexpected(err)
	}
	q.protocol = transport.Protocol(id)
	return q, nil
}

func (a *bulkAnswer) append(b []byte) []byte {
	b = append(b, a.code, flags(a.clear))
	b = binary.BigEndian.AppendUint64(b, a.number)
	return append(b, a.want[:]...)
}

func readBulkAnswer(r io.Reader) (a bulkAnswer, err error) {
	var b [answerBytes]byte
	if _, err = io.ReadFull(r, b[:]); err != nil {
		return a, unexpected(err)
	}
	switch a.code = b[0]; a.code {
	case answerYes:
	case answerTooMany:
		return a, fmt.Errorf("%w: the peer has enough bulk connections", transport.ErrTooMany)
	case answerRefused:
		return a, fmt.Errorf("%w by the peer", transport.ErrRefused)
	default:
		return a, fmt.Errorf("%w: answer %d", errMalformed, a.code)
	}
	if a.clear, err = readFlags(b[1]); err != nil {
		return a, err
	}
	a.number = binary.BigEndian.Uint64(b[2:])
	copy(a.want[:], b[10:])
	return a, nil
}

// bulkHello is the first thing on a bulk connection, from the side that dialled it.
type bulkHello struct {
	number uint64
	token  token
}

func (h *bulkHello) append(b []byte) []byte {
	b = append(b, bulkMagic...)
	b = binary.BigEndian.AppendUint64(b, h.number)
	return append(b, h.token[:]...)
}

// readHello reads a hello whose first byte is in b already.
func readHello(r io.Reader, b *[helloBytes]byte) (h bulkHello, err error) {
	if _, err = io.ReadFull(r, b[1:]); err != nil {
		return h, unexpected(err)
	}
	if string(b[:len(bulkMagic)]) != bulkMagic {
		return h, fmt.Errorf("%w: %q is no greeting", errMalformed, b[:len(bulkMagic)])
	}
	h.number = binary.BigEndian.Uint64(b[len(bulkMagic):])
	copy(h.token[:], b[len(bulkMagic)+8:])
	return h, nil
}
