package sim

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"dray/wire"
)

// A Schedule's text has a line for each thing in it, words separated by spaces, and # before what is only to be read:
//
//	world seed=7 turn=1ms file=700,812 leaves=0-1,0 bones=2
//	host 0 anchor version=swap
//	host 1 getter start=120ms root peers=0
//	link 0 1
//	at 300ms freeze 0 for=10s
//
// A host has its number and its role; an event its time, its verb, the host, and, where it takes two, the other as peer=.

// field is a part of a Schedule that can be written, read, and made simpler by being zero. V points to it.
type field struct {
	key string
	v   any
}

func (s *Schedule) fields() []field {
	return []field{
		{"seed", &s.Seed},
		{"turn", &s.Turn},
		{"codec", &s.Codec},
		{"virtual", &s.Virtual},
		{"alone", &s.Alone},
		{"limit", &s.Limit},
		{"count", &s.Count},
		{"size", &s.Size},
		{"bones", &s.Bones},
		{"file", &s.File},
		{"leaves", &s.Leaves},
	}
}

func (h *HostPlan) fields() []field {
	c := &h.Config
	f := &c.Faults
	list := []field{
		{"version", &c.Version},
		{"all", &h.All},
		{"has", &h.Has},
		{"knows", &h.Knows},
		{"up", &c.Up},
		{"down", &c.Down},
		{"delay", &c.Delay},
		{"loss", &c.Loss},
		{"streams", &c.Streams},
		{"disk-latency", &c.Disk.Latency},
		{"disk-jitter", &c.Disk.Jitter},
		{"disk-rate", &c.Disk.Rate},
		{"fail-writes", &c.Disk.FailWrites},
		{"fail-reads", &c.Disk.FailReads},
		{"stuck", &c.Disk.Stuck},
		{"mute", &f.Mute},
		{"frozen", &f.Frozen},
		{"liar", &f.Liar},
		{"denier", &f.Denier},
		{"wrong", &f.WrongBytes},
		{"forgets", &f.Forget},
		{"swallows", &f.Swallow},
		{"repeats", &f.Repeat},
		{"uninvited", &f.Uninvited},
		{"flood", &f.Flood},
		{"misuse", &f.Swap},
		{"serve-bytes", &c.Engine.ServeBytes},
		{"peer-serve-bytes", &c.Engine.PeerServeBytes},
		{"receive-bytes", &c.Engine.ReceiveBytes},
		{"ask-bytes", &c.Engine.Window},
		{"inline-bytes", &c.Engine.InlineBytes},
		{"limit-up", &c.Engine.Limits.Up},
		{"limit-down", &c.Engine.Limits.Down},
		{"limit-peer-up", &c.Engine.Limits.PeerUp},
		{"limit-peer-down", &c.Engine.Limits.PeerDown},
		{"start", &h.Start},
	}
	return append(list, h.Fetch.fields()...)
}

func (p *FetchPlan) fields() []field {
	return []field{
		{"root", &p.Rooted},
		{"no-walk", &p.NoWalk},
		{"walk", &p.Walk},
		{"push", &p.Push},
		{"rarest", &p.Rarest},
		{"only", &p.Only},
		{"waiting", &p.Waiting},
		{"window", &p.Window},
		{"sized", &p.Sized},
		{"deadlines", &p.Deadlines},
		{"peers", &p.Peers},
		{"whole", &p.Every},
		{"give-up", &p.GiveUp},
		{"want", &p.Blocks},
	}
}

func (e *Event) fields() []field {
	list := []field{
		{"peer", &e.Peer},
		{"for", &e.For},
		{"every", &e.Every},
		{"n", &e.N},
		{"p", &e.P},
		{"hosts", &e.Hosts},
		{"blocks", &e.Blocks},
	}
	if e.Do == DoFetch {
		list = append(list, e.Fetch.fields()...)
	}
	return list
}

// String returns the text, which [ParseSchedule] reads.
func (s *Schedule) String() string {
	var b strings.Builder
	b.WriteString("world" + words(s.fields()) + "\n")
	for i := range s.Hosts {
		h := &s.Hosts[i]
		fmt.Fprintf(&b, "host %d %s%s\n", h.ID, roles[h.Role], words(h.fields()))
	}
	for _, l := range s.Links {
		fmt.Fprintf(&b, "link %d %d\n", l.A, l.B)
	}
	for i := range s.Events {
		e := &s.Events[i]
		fmt.Fprintf(&b, "at %v %s %d%s\n", e.At, e.Do, e.Host, words(e.fields()))
	}
	return b.String()
}

// words writes the fields that are not zero.
func words(list []field) string {
	var b strings.Builder
	for _, f := range list {
		if f.zero() {
			continue
		}
		b.WriteString(" " + f.key)
		if _, flag := f.v.(*bool); !flag {
			b.WriteString("=" + f.text())
		}
	}
	return b.String()
}

func (f field) zero() bool {
	v := reflect.ValueOf(f.v).Elem()
	return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
}

// reset makes the field zero.
func (f field) reset() { reflect.ValueOf(f.v).Elem().SetZero() }

func (f field) text() string {
	switch v := f.v.(type) {
	case *float64:
		return strconv.FormatFloat(*v, 'g', -1, 64)
	case *wire.Version:
		for _, x := range versions {
			if x.v == *v {
				return x.name
			}
		}
		return "unknown"
	case *[]int:
		return rangesText(*v)
	case *SwapFault:
		return strconv.Itoa(int(*v))
	}
	return fmt.Sprint(reflect.ValueOf(f.v).Elem())
}

func (f field) parse(text string) (err error) {
	switch v := f.v.(type) {
	case *bool:
		*v = true
		if text != "" {
			err = fmt.Errorf("%s takes no value", f.key)
		}
	case *int:
		*v, err = strconv.Atoi(text)
	case *int64:
		*v, err = strconv.ParseInt(text, 10, 64)
	case *uint64:
		*v, err = strconv.ParseUint(text, 10, 64)
	case *float64:
		*v, err = strconv.ParseFloat(text, 64)
	case *time.Duration:
		*v, err = time.ParseDuration(text)
	case *wire.Version:
		i := slices.IndexFunc(versions, func(x versionName) bool { return x.name == text })
		if i < 0 {
			return fmt.Errorf("no version %q", text)
		}
		*v = versions[i].v
	case *SwapFault:
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil || SwapFault(n) >= swapFaults {
			return fmt.Errorf("no misuse %q", text)
		}
		*v = SwapFault(n)
	case *[]int:
		*v, err = parseRanges(text)
	default:
		panic(fmt.Sprintf("sim: field %s is of an unknown type", f.key))
	}
	return err
}

// rangesText writes a list of numbers, runs of them as first-last.
func rangesText(list []int) string {
	var b strings.Builder
	for i := 0; i < len(list); {
		k := i
		for k+1 < len(list) && list[k+1] == list[k]+1 {
			k++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(list[i]))
		if k > i {
			b.WriteString("-" + strconv.Itoa(list[k]))
		}
		i = k + 1
	}
	return b.String()
}

const maxNumbers = 1 << 20 // in one list of a Schedule's text

func parseRanges(text string) ([]int, error) {
	var out []int
	for _, part := range strings.Split(text, ",") {
		first, last, run := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		b := a
		if err == nil && run {
			b, err = strconv.Atoi(last)
		}
		if err != nil || a < 0 || b < a || len(out)+b-a >= maxNumbers {
			return nil, fmt.Errorf("%q is no list of numbers", text)
		}
		for ; a <= b; a++ {
			out = append(out, a)
		}
	}
	return out, nil
}

// ParseSchedule reads the text of a Schedule. The error names the line.
func ParseSchedule(text string) (*Schedule, error) {
	s := new(Schedule)
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		if err := s.parseLine(w[0], w[1:]); err != nil {
			return nil, fmt.Errorf("line %d of the schedule: %w", i+1, err)
		}
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("the schedule: %w", err)
	}
	return s, nil
}

func (s *Schedule) parseLine(kind string, w []string) (err error) {
	need := map[string]int{"world": 0, "host": 2, "link": 2, "at": 3}
	n, known := need[kind]
	if !known || len(w) < n {
		return fmt.Errorf("%s is no line, or it lacks words", kind)
	}
	switch kind {
	case "world":
		return parseWords(s.fields(), w)
	case "host":
		h := HostPlan{Role: Role(slices.Index(roles, w[1]))}
		if h.ID, err = strconv.Atoi(w[0]); err != nil || int(h.Role) >= len(roles) {
			return fmt.Errorf("a host needs a number and one of the roles %v", roles)
		}
		err = parseWords(h.fields(), w[2:])
		s.Hosts = append(s.Hosts, h)
	case "link":
		l := Link{}
		if l.A, err = strconv.Atoi(w[0]); err == nil {
			l.B, err = strconv.Atoi(w[1])
		}
		s.Links = append(s.Links, l)
	case "at":
		e := Event{Do: Verb(w[1])}
		if !slices.Contains(verbs, e.Do) {
			return fmt.Errorf("nothing is called %q", w[1])
		}
		if e.At, err = time.ParseDuration(w[0]); err == nil {
			e.Host, err = strconv.Atoi(w[2])
		}
		if err == nil {
			err = parseWords(e.fields(), w[3:])
		}
		s.Events = append(s.Events, e)
	}
	return err
}

func parseWords(list []field, words []string) error {
	for _, w := range words {
		key, text, _ := strings.Cut(w, "=")
		i := slices.IndexFunc(list, func(f field) bool { return f.key == key })
		if i < 0 {
			return fmt.Errorf("nothing is called %q here", key)
		}
		if err := list[i].parse(text); err != nil {
			return err
		}
	}
	return nil
}

// check reports what would not run: names of hosts and blocks that are not there.
func (s *Schedule) check() error {
	n := s.blocks()
	if n == 0 || n > maxNumbers || s.Bones < 0 || s.Bones > 1<<16 {
		return fmt.Errorf("%d blocks, and %d above them", n, s.Bones)
	}
	lists := [][]int{s.Leaves}
	ids := make(map[int]bool)
	for i := range s.Hosts {
		h := &s.Hosts[i]
		if ids[h.ID] || h.ID < 0 {
			return fmt.Errorf("host %d comes twice, or is none", h.ID)
		}
		ids[h.ID] = true
		lists = append(lists, h.Has, h.Fetch.Blocks)
		if h.Knows < 0 || h.Knows > max(s.Bones, 1) {
			return fmt.Errorf("host %d knows %d blocks of a skeleton of %d", h.ID, h.Knows, max(s.Bones, 1))
		}
	}
	for _, l := range s.Links {
		if !ids[l.A] || !ids[l.B] {
			return fmt.Errorf("no host %d or %d to link", l.A, l.B)
		}
	}
	for i := range s.Events {
		e := &s.Events[i]
		lists = append(lists, e.Blocks, e.Fetch.Blocks)
		if !ids[e.Host] || e.Every < 0 || e.At < 0 || e.For < 0 || e.N < 0 {
			return fmt.Errorf("%s at %v does not say to which host, or how", e.Do, e.At)
		}
	}
	for _, list := range lists {
		for _, b := range list {
			if b < 0 || b >= n {
				return fmt.Errorf("no block %d of %d", b, n)
			}
		}
	}
	return nil
}
