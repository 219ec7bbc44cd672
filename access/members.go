package access

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	ma "github.com/multiformats/go-multiaddr"

	"dray"
)

// The bounds of a members file.
const (
	// MaxMembersFile is how many bytes it may have.
	MaxMembersFile = 4 << 20
	// MaxMembers is how many members it may name.
	MaxMembers = 1 << 14
	// MaxMemberAddrs is how many addresses one of them may have.
	MaxMemberAddrs = 32
)

// Member is one line of a members file.
type Member struct {
	// ID is who.
	ID dray.PeerID
	// Addrs are where it may be dialled: multiaddrs without /p2p/ID. A member without any is one that dials.
	Addrs []string
	// Line is where it stands in the file, from 1.
	Line int
}

// Members is what a members file says. The zero value has none. It does not change, and is safe for concurrent use.
type Members struct {
	list []Member
	of   map[dray.PeerID]int
}

// LineError says which line of a members file is wrong, how, and what would be right.
type LineError struct {
	// Line counts from 1.
	Line int
	// Wrong and Right say it.
	Wrong, Right string
}

// Error returns "line N: what is wrong; what would be right".
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s; %s", e.Line, e.Wrong, e.Right) }

// ParseMembers reads a members file: on each line the id of a peer and then its addresses, with blanks between; what
// follows a # is a remark, and empty lines mean nothing. A file in which anything is wrong is refused whole, with a
// [*LineError].
func ParseMembers(text []byte) (*Members, error) {
	m := &Members{of: make(map[dray.PeerID]int)}
	if len(text) > MaxMembersFile {
		return nil, &LineError{1, fmt.Sprintf("the file has %d bytes", len(text)), fmt.Sprintf("at most %d", MaxMembersFile)}
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		one, err := parseMember(string(line))
		switch {
		case err != nil:
			err.Line = n
			return nil, err
		case one.ID == "":
			continue
		}
		one.Line = n
		if k, twice := m.of[one.ID]; twice {
			return nil, &LineError{
				n, fmt.Sprintf("%v stands in line %d already", one.ID, m.list[k].Line), "keep one line, with all its addresses",
			}
		}
		if len(m.list) == MaxMembers {
			return nil, &LineError{n, fmt.Sprintf("more than %d members", MaxMembers), "so many are no longer read"}
		}
		m.of[one.ID] = len(m.list)
		m.list = append(m.list, one)
	}
	return m, nil
}

// parseMember reads one line; a Member without ID is a line that names none.
func parseMember(line string) (Member, *LineError) {
	if !utf8.ValidString(line) {
		return Member{}, &LineError{Wrong: "it is no UTF-8 text", Right: "write the file with an editor for text"}
	}
	if i := strings.IndexByte(line, '#'); i >= 0 {
		line = line[:i]
	}
	for _, r := range line {
		if !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return Member{}, &LineError{Wrong: fmt.Sprintf("it has the control character %U", r), Right: "take it out"}
		}
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return Member{}, nil
	}
	id, err := parseID(words[0])
	if err != nil {
		return Member{}, err
	}
	m := Member{ID: id}
	for _, w := range words[1:] {
		a, err := parseAddr(w, id)
		switch {
		case err != nil:
			return Member{}, err
		case slices.Contains(m.Addrs, a):
			return Member{}, &LineError{Wrong: fmt.Sprintf("the address %s stands there twice", clip(w)), Right: "keep one"}
		case len(m.Addrs) == MaxMemberAddrs:
			return Member{}, &LineError{
				Wrong: fmt.Sprintf("%v has more than %d addresses", id, MaxMemberAddrs), Right: "keep those that matter",
			}
		}
		m.Addrs = append(m.Addrs, a)
	}
	return m, nil
}

func parseID(word string) (dray.PeerID, *LineError) {
	const right = "a line begins with the id of a peer, as `dray id` prints it, such as 12D3KooW…"
	id, err := dray.ParsePeerID(word)
	switch {
	case strings.HasPrefix(word, "/"):
		return "", &LineError{Wrong: fmt.Sprintf("it begins with the address %s", clip(word)), Right: right}
	case err != nil || id.String() != word:
		return "", &LineError{Wrong: fmt.Sprintf("%s is no peer id", clip(word)), Right: right}
	}
	return id, nil
}

// parseAddr reads an address of peer id's, and returns it without the id.
func parseAddr(word string, id dray.PeerID) (string, *LineError) {
	const right = "right is a multiaddr like /ip4/192.0.2.7/tcp/4001"
	if !strings.HasPrefix(word, "/") {
		return "", &LineError{Wrong: fmt.Sprintf("%s is no address", clip(word)), Right: right}
	}
	m, err := ma.NewMultiaddr(word)
	if err != nil {
		return "", &LineError{Wrong: fmt.Sprintf("%s is no address (%s)", clip(word), oneLine(err)), Right: right}
	}
	rest, last := ma.SplitLast(m)
	if last == nil || last.Protocol().Code != ma.P_P2P {
		return m.String(), nil
	}
	switch {
	case last.Value() != id.String():
		return "", &LineError{
			Wrong: fmt.Sprintf("the address %s names another peer than the line", clip(word)),
			Right: "each peer has a line of its own",
		}
	case len(rest) == 0:
		return "", &LineError{Wrong: fmt.Sprintf("%s is no address but a peer", clip(word)), Right: right}
	}
	return rest.String(), nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// clip quotes a word, or the beginning of a long one.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…", s[:most])
}

// Has reports whether id is a member.
func (m *Members) Has(id dray.PeerID) bool {
	if m == nil {
		return false
	}
	_, ok := m.of[id]
	return ok
}

// List returns the members in the order of the file. The slice is shared and must not be changed.
func (m *Members) List() []Member {
	if m == nil {
		return nil
	}
	return m.list
}

// String returns the member as a line of a members file, without the line's end.
func (m Member) String() string {
	return strings.Join(append([]string{m.ID.String()}, m.Addrs...), " ")
}

// AddMember returns the text of a members file with one member more, or with the addresses added to a member who stands
// there. All else, remarks included, stays as it is. It returns a [*LineError] when the text is malformed or the member is.
func AddMember(text []byte, add Member) ([]byte, error) {
	old, err := ParseMembers(text)
	if err != nil {
		return nil, err
	}
	add, bad := parseMember(add.String())
	if bad != nil {
		return nil, bad
	}
	if k, there := old.of[add.ID]; there {
		was := old.list[k]
		one := Member{ID: was.ID, Addrs: slices.Clone(was.Addrs)}
		for _, a := range add.Addrs {
			if !slices.Contains(one.Addrs, a) {
				one.Addrs = append(one.Addrs, a)
			}
		}
		text = replaceLine(text, was.Line, func(line string) string {
			remark := ""
			if i := strings.IndexByte(line, '#'); i >= 0 {
				remark = " " + strings.TrimRight(line[i:], "\r\n")
			}
			return one.String() + remark + "\n"
		})
	} else {
		text = slices.Clone(text)
		if len(text) > 0 && text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
		text = append(text, add.String()+"\n"...)
	}
	_, err = ParseMembers(text) // it may have too many now
	return text, err
}

// RemoveMember returns the text of a members file without the line of a member, and whether there was one. It returns a
// [*LineError] when the text is malformed.
func RemoveMember(text []byte, id dray.PeerID) ([]byte, bool, error) {
	old, err := ParseMembers(text)
	if err != nil {
		return nil, false, err
	}
	k, there := old.of[id]
	if !there {
		return text, false, nil
	}
	return replaceLine(text, old.list[k].Line, func(string) string { return "" }), true, nil
}

// replaceLine returns text with one line, its end included, made another.
func replaceLine(text []byte, number int, by func(string) string) []byte {
	var out []byte
	n := 0
	for line := range bytes.Lines(text) {
		if n++; n == number {
			out = append(out, by(string(line))...)
		} else {
			out = append(out, line...)
		}
	}
	return out
}
