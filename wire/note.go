package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Note is a short message between two Drays that belongs to no state: it may be lost with its connection, and who does not know
// its kind passes over it. Notes travel in frames of their own, see docs/wire.md; a TensorSwap that does not know of them skips
// them. Bitswap has none.
type Note struct {
	// Kind says what it is; not 0.
	Kind NoteKind
	// Data is at most [MaxNote] bytes, whose meaning depends on the kind.
	Data []byte
}

// NoteKind says what a [Note] is about.
type NoteKind uint32

// The kinds of notes.
const (
	// NoteGoodbye says that the sender is about to stop, in an orderly way: it answers nothing any more. It has no data.
	NoteGoodbye NoteKind = 1
	// NoteRefused says that the sender does not admit the receiver and is about to disconnect. Its data is the reason, as text
	// for a human.
	NoteRefused NoteKind = 2
	// NoteTrace says to somebody who gave something to a transfer of the sender's which span of which trace it was, so that he can
	// add his own. Its data is package meter's.
	NoteTrace NoteKind = 3
)

const (
	// MaxNote is how long the data of a note may be, in bytes.
	MaxNote = 1024
	// MaxNotes is how many notes a frame may carry.
	MaxNotes = 16

	sectionNotes = sectionMayBeSkipped
)

var (
	errNoteKind = errors.New("a note without a kind")
	errNoteData = fmt.Errorf("a note of more than %d bytes", MaxNote)
	errNotes    = fmt.Errorf("a frame of no notes, or more than %d", MaxNotes)
)

// AppendNotes appends a frame of TensorSwap that carries notes. The error says which of them is not allowed.
func AppendNotes(dst []byte, notes ...Note) ([]byte, error) {
	if len(notes) == 0 || len(notes) > MaxNotes {
		return dst, errNotes
	}
	size := uvarintSize(uint64(len(notes)))
	for _, n := range notes {
		switch {
		case n.Kind == 0:
			return dst, errNoteKind
		case len(n.Data) > MaxNote:
			return dst, errNoteData
		}
		size += u32Size(uint32(n.Kind)) + u32Size(uint32(len(n.Data))) + len(n.Data)
	}
	dst = appendControlHead(dst, fieldSize(size))
	dst = binary.AppendUvarint(append(dst, byte(sectionNotes)), uint64(size))
	dst = binary.AppendUvarint(dst, uint64(len(notes)))
	for _, n := range notes {
		dst = appendU32(appendU32(dst, uint32(n.Kind)), uint32(len(n.Data)))
		dst = append(dst, n.Data...)
	}
	return dst, nil
}

// Notes returns the notes that a frame of TensorSwap carries, which [Decode] has found to be well formed but for its notes. Most
// frames carry none. Their data aliases the frame. An error is an [*Error]: no Dray writes that.
func Notes(frame []byte) ([]Note, error) {
	if len(frame) <= controlHead || frame[0] != frameControl || section(frame[controlHead]) != sectionNotes {
		return nil, nil
	}
	c := swapCursor{cursor: cursor{b: frame, pos: controlHead + 1, end: len(frame)}}
	size, err := c.span("notes")
	if err != nil {
		return nil, noteError(err)
	}
	c.end = c.pos + size
	notes, err := c.notes()
	if err == nil && c.more() {
		err = c.bad("notes", c.pos, fmt.Errorf("%w: %d bytes too many", ErrMalformed, c.end-c.pos))
	}
	if err != nil {
		return nil, noteError(err)
	}
	return notes, nil
}

// noteError says of which version the frame is.
func noteError(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Version = Swap1
	}
	return err
}

func (c *swapCursor) notes() ([]Note, error) {
	at := c.pos
	n, err := c.positive("notes", math.MaxUint32)
	switch {
	case err != nil:
		return nil, err
	case n > MaxNotes:
		return nil, c.bad("notes", at, fmt.Errorf("%w: %w", ErrMalformed, errNotes))
	}
	notes := make([]Note, 0, n)
	for range n {
		kind, err := c.positive("notes.kind", math.MaxUint32)
		if err != nil {
			return nil, err
		}
		at := c.pos
		size, err := c.span("notes.data")
		switch {
		case err != nil:
			return nil, err
		case size > MaxNote:
			return nil, c.bad("notes.data", at, fmt.Errorf("%w: %w", ErrMalformed, errNoteData))
		}
		notes = append(notes, Note{Kind: NoteKind(kind), Data: c.b[c.pos : c.pos+size : c.pos+size]})
		c.pos += size
	}
	return notes, nil
}
