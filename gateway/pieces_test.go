package gateway

import (
	"io"
	"testing"
)

// sizes is a body that notes the largest piece that was asked for.
type sizes struct{ left, largest int }

func (s *sizes) Read(p []byte) (int, error) {
	s.largest = max(s.largest, len(p))
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(s.left, len(p))
	s.left -= n
	return n, nil
}

// TestPieces: a body is read in larger pieces only while few requests are served, so that many do not take much memory.
func TestPieces(t *testing.T) {
	for _, row := range []struct{ served, piece int }{{1, largePiece}, {fewRequests, largePiece}, {fewRequests + 1, pieceSize}} {
		g, err := New(Config{Local: newMemory(), Requests: 2 * fewRequests})
		if err != nil {
			t.Fatal(err)
		}
		for range row.served {
			g.slots <- struct{}{}
		}
		body := &sizes{left: 4 * largePiece}
		q := &request{g: g}
		if n, err := q.copyPieces(io.Discard, body, false); err != nil || n != 4*largePiece {
			t.Errorf("%d bytes, %v", n, err)
		}
		if body.largest != row.piece {
			t.Errorf("with %d requests a piece is %d bytes, want %d", row.served, body.largest, row.piece)
		}
	}
}
