package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/ipfs/go-cid"
	ma "github.com/multiformats/go-multiaddr"

	"dray"
	rules "dray/access"
	"dray/transport"
	"dray/unixfs"
)

// A ticket is one line that names a root and where to get it. docs/tickets.md describes the form:
//
//	"dray1" base32( fields checksum )
//
// Fields are a tag, a length and that many bytes, both as varints; the checksum is the first four bytes of the SHA-256 of
// "dray1" and the fields. Base32 is RFC 4648's, in lower case and without padding.

const (
	ticketPrefix   = "dray1"
	ticketSum      = 4
	maxTicket      = 16 << 10 // letters
	maxTicketPeers = 64
	maxTicketAddrs = 32 // of one peer
	maxTicketName  = 255
)

// The fields of a ticket. A reader skips what it does not know from tagSkippable on, and refuses what it does not know
// below.
const (
	tagCID        = 1 // the root, binary; once
	tagPeer       = 2 // a peer id; begins a peer
	tagAddr       = 3 // a binary multiaddr of the peer before
	tagCapability = 4 // the secret of a private root, 32 bytes; at most once
	tagSkippable  = 64
	tagName       = 64 // of the file or directory, UTF-8; at most once
	tagSize       = 65 // in bytes of content, a varint; at most once
)

var ticketCode = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ticket is what a ticket says.
type ticket struct {
	root  cid.Cid
	peers []transport.Peer
	// secret is what lets whoever has the ticket get the root, if that is private.
	secret rules.Secret
	// name and size are hints for people, from whoever made the ticket; size is -1 when it is not said.
	name string
	size int64
}

// String returns the ticket as one line. Addresses that cannot be written are left out.
func (t ticket) String() string {
	b := []byte(ticketPrefix)
	field := func(tag uint64, value []byte) {
		b = binary.AppendUvarint(b, tag)
		b = binary.AppendUvarint(b, uint64(len(value)))
		b = append(b, value...)
	}
	field(tagCID, t.root.Bytes())
	for _, p := range t.peers {
		field(tagPeer, []byte(p.ID))
		for _, a := range p.Addrs {
			if m, err := ma.NewMultiaddr(strings.TrimSuffix(a, "/p2p/"+p.ID.String())); err == nil {
				field(tagAddr, m.Bytes())
			}
		}
	}
	if !t.secret.IsZero() {
		field(tagCapability, t.secret[:])
	}
	if t.name != "" && len(t.name) <= maxTicketName {
		field(tagName, []byte(t.name))
	}
	if t.size >= 0 {
		field(tagSize, binary.AppendUvarint(nil, uint64(t.size)))
	}
	sum := sha256.Sum256(b)
	return ticketPrefix + ticketCode.EncodeToString(append(b[len(ticketPrefix):], sum[:ticketSum]...))
}

// looksLikeTicket reports whether somebody who typed s meant a ticket.
func looksLikeTicket(s string) bool { return len(s) > 4 && strings.EqualFold(s[:4], "dray") }

// parseTicket reads a ticket. Letters may be of either case, and white space, as left by line breaks, is ignored. The
// error says what is wrong and what would be right.
func parseTicket(s string) (ticket, error) {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
	body, ok := strings.CutPrefix(s, ticketPrefix)
	switch {
	case !ok && len(s) > 4 && s[4] >= '2' && s[4] <= '9':
		return ticket{}, fmt.Errorf("the ticket is of version %c, made by a newer dray; this one reads version 1: update it",
			s[4])
	case !ok:
		return ticket{}, errors.New("a ticket begins with dray1")
	case len(s) > maxTicket:
		return ticket{}, fmt.Errorf("the ticket has %d letters, more than %d", len(s), maxTicket)
	}
	for i, r := range body {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz234567", r) {
			return ticket{}, fmt.Errorf("%q, letter %d of the ticket, does not occur in tickets; copy it again",
				r, len(ticketPrefix)+i+1)
		}
	}
	b, err := ticketCode.DecodeString(body)
	if err != nil || len(b) < ticketSum || ticketCode.EncodeToString(b) != body { // the last letter may have idle bits
		return ticket{}, errors.New("the ticket is cut off; copy all of it")
	}
	fields, sum := b[:len(b)-ticketSum], b[len(b)-ticketSum:]
	whole := sha256.Sum256(append([]byte(ticketPrefix), fields...))
	if !bytes.Equal(sum, whole[:ticketSum]) {
		return ticket{}, errors.New("the ticket's checksum is wrong: a letter is missing or changed; copy it again")
	}
	return parseFields(fields)
}

// parseFields reads what a checksum has vouched for: errors in it are the maker's.
func parseFields(b []byte) (ticket, error) {
	t := ticket{size: -1}
	seen := make(map[uint64]bool)
	for len(b) > 0 {
		tag, value, rest, err := cutField(b)
		if err != nil {
			return ticket{}, err
		}
		b = rest
		if seen[tag] && tag != tagPeer && tag != tagAddr {
			return ticket{}, fmt.Errorf("whoever made the ticket made it wrong: field %d stands twice", tag)
		}
		seen[tag] = true
		if err := t.field(tag, value); err != nil {
			return ticket{}, fmt.Errorf("whoever made the ticket made it wrong: %w", err)
		}
	}
	if !t.root.Defined() {
		return ticket{}, errors.New("whoever made the ticket made it wrong: it names no root")
	}
	return t, nil
}

func cutField(b []byte) (tag uint64, value, rest []byte, err error) {
	tag, n := binary.Uvarint(b)
	if n > 0 {
		length, k := binary.Uvarint(b[n:])
		if k > 0 && length <= uint64(len(b)-n-k) {
			end := n + k + int(length)
			return tag, b[n+k : end], b[end:], nil
		}
	}
	return 0, nil, nil, errors.New("whoever made the ticket made it wrong: a field is cut off")
}

func (t *ticket) field(tag uint64, value []byte) error {
	switch tag {
	case tagCID:
		c, err := cid.Cast(value)
		if err == nil {
			err = dray.CheckCID(c)
		}
		t.root = c
		return err
	case tagPeer:
		id, err := dray.ParsePeerID(dray.PeerID(value).String())
		if err != nil || len(t.peers) == maxTicketPeers {
			return errors.Join(errors.New("a bad peer id, or too many peers"), err)
		}
		t.peers = append(t.peers, transport.Peer{ID: id})
	case tagAddr:
		m, err := ma.NewMultiaddrBytes(value)
		if err != nil {
			return err
		}
		if len(t.peers) == 0 {
			return errors.New("an address comes before its peer")
		}
		p := &t.peers[len(t.peers)-1]
		if len(p.Addrs) == maxTicketAddrs {
			return errors.New("too many addresses")
		}
		p.Addrs = append(p.Addrs, m.String())
	case tagName:
		if len(value) > maxTicketName || unixfs.CheckName(string(value)) != nil {
			return errors.New("the name cannot be a file's")
		}
		t.name = string(value)
	case tagSize:
		n, k := binary.Uvarint(value)
		if k != len(value) || n > 1<<62 {
			return errors.New("the size is no number")
		}
		t.size = int64(n)
	case tagCapability:
		if len(value) != len(t.secret) || rules.Secret(value).IsZero() {
			return fmt.Errorf("its capability is not %d bytes", len(t.secret))
		}
		t.secret = rules.Secret(value)
	default:
		if tag < tagSkippable {
			return fmt.Errorf("field %d is unknown to this version", tag)
		}
	}
	return nil
}
