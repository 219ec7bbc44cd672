package settings

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Input is where settings come from.
type Input struct {
	// File is how the file is called in complaints, and Text what stands in it. If both are empty, there is none.
	File string
	Text []byte
	// Env are variables, NAME=VALUE, as os.Environ returns them.
	Env []string
	// Flags are what flags say.
	Flags []Flag
}

// Flag is a key that a flag sets.
type Flag struct {
	// Name is the flag, such as --http.
	Name, Key, Text string
}

// Effective are settings, with where each came from. It is not changed after it was read.
type Effective struct {
	Settings
	from map[string]string
}

// From says where a key's value came from: "default", "preset edge", a file and a line, a variable or a flag.
func (e *Effective) From(key string) string {
	if f := e.from[key]; f != "" {
		return f
	}
	return "default"
}

// ValueError is a value that makes no sense.
type ValueError struct {
	// Where is where it stands, if that is known: FILE:LINE, a variable or a flag.
	Where string
	// Key is whose value it is, Value the value, Right what would be one.
	Key, Value, Right string
}

func (e *ValueError) Error() string {
	s := fmt.Sprintf("%s is %s; right is %s", e.Key, e.Value, e.Right)
	if e.Where != "" {
		s = e.Where + ": " + s
	}
	return s
}

// Wrong returns a [*ValueError] for a section's check.
func Wrong(key string, value any, right string) error {
	text := fmt.Sprint(value)
	switch v := value.(type) {
	case string:
		text = quote(clip(v))
	case []string:
		text = literal(reflect.ValueOf(v))
	}
	return &ValueError{Key: key, Value: text, Right: right}
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "…"
	}
	return s
}

// reading is a [Read] under way.
type reading struct {
	in   Input
	keys []Key
	e    *Effective
	errs []error
}

// Parse returns the settings that the text of a file says, the rest being as in from. It refuses keys that do not exist.
func Parse(text []byte, from Settings) (Settings, error) {
	r := reading{in: Input{Text: text}, keys: Keys(), e: &Effective{Settings: from, from: map[string]string{}}}
	if f, ok := r.parse(); ok {
		r.file(f)
	}
	r.check()
	if err := errors.Join(r.errs...); err != nil {
		return from, err
	}
	return r.e.Settings, nil
}

// Read puts settings together: defaults or a preset, then the file, then the environment, then flags. The error names every
// mistake, where it is and what would be right.
func Read(in Input) (*Effective, error) {
	r := reading{in: in, keys: Keys(), e: &Effective{Settings: Default(), from: map[string]string{}}}
	f, ok := r.parse()
	if !ok {
		return nil, errors.Join(r.errs...)
	}
	r.base(f)
	r.file(f)
	r.environment()
	for _, g := range in.Flags {
		r.text(g.Key, g.Text, g.Name)
	}
	r.check()
	if err := errors.Join(r.errs...); err != nil {
		return nil, err
	}
	return r.e, nil
}

// parsed is a file of which the tables are known.
type parsed struct {
	about toml.MetaData
	top   map[string]toml.Primitive
}

func (r *reading) parse() (parsed, bool) {
	var (
		f   parsed
		bad toml.ParseError
		err error
	)
	f.about, err = toml.Decode(string(r.in.Text), &f.top)
	switch {
	case errors.As(err, &bad):
		r.fail("%s: this is no TOML: %s", r.place(bad.Position.Line), bad.Message)
	case err != nil:
		r.fail("%s: %w", r.place(0), err)
	}
	return f, err == nil
}

// base takes the defaults of the preset that the file, the environment or a flag names.
func (r *reading) base(f parsed) {
	name := Default().Preset
	if p, ok := f.top["preset"]; ok {
		_ = f.about.PrimitiveDecode(p, &name) // that it is a text is checked with the others
	}
	for _, v := range r.in.Env {
		if x, ok := strings.CutPrefix(v, envPrefix+"PRESET="); ok && x != "" {
			name = x
		}
	}
	for _, g := range r.in.Flags {
		if g.Key == "preset" {
			name = g.Text
		}
	}
	preset, ok := presetOf(name)
	if !ok {
		return // the check says so
	}
	plain := Default()
	for i := range r.keys {
		k := &r.keys[i]
		if k.Section != "" && k.Value(&preset) != k.Value(&plain) {
			r.e.from[k.Name] = "preset " + name
		}
	}
	r.e.Settings = preset
}

// file takes what the file says.
func (r *reading) file(f parsed) {
	sections := r.sections()
	for _, name := range r.inOrder(f.about, nil, f.top) {
		p := f.top[name]
		switch {
		case slices.Contains(sections, name):
			var table map[string]toml.Primitive
			if err := f.about.PrimitiveDecode(p, &table); err != nil || table == nil {
				r.fail("%s: %s is no table; right is [%s] on a line, and its keys below", r.place(line(&f.about, p)), name, name)
				continue
			}
			for _, key := range r.inOrder(f.about, []string{name}, table) {
				r.primitive(f.about, name+"."+key, table[key])
			}
		case r.key(name) != nil:
			r.primitive(f.about, name, p)
		default:
			at := r.place(line(&f.about, p))
			if near, ok := Nearest(name, append(sections, r.topKeys()...)); ok {
				r.fail("%s: there is no section or key %q; did you mean %s?", at, name, near)
			} else if full, ok := r.likeField(name); ok {
				r.fail("%s: there is no key %q above the sections; did you mean %s?", at, name, full)
			} else {
				r.fail("%s: there is no section %q; there are %s", at, name, strings.Join(sections, ", "))
			}
		}
	}
}

// primitive takes one key of the file.
func (r *reading) primitive(about toml.MetaData, name string, p toml.Primitive) {
	at := r.place(line(&about, p))
	k := r.key(name)
	if k == nil {
		r.unknown(at, name)
		return
	}
	v := k.field(&r.e.Settings)
	var x any
	if err := about.PrimitiveDecode(p, &x); err != nil {
		r.fail("%s: %s: %w", at, name, err)
		return
	}
	if deep(v.Type()) { // a table, or a list of tables
		fresh := reflect.New(v.Type())
		if err := about.PrimitiveDecode(p, fresh.Interface()); err != nil {
			r.fail("%s: %s is not as it should be (%s); right is %s", at, name, strings.TrimPrefix(err.Error(), "toml: "), kind(v.Type()))
			return
		}
		for _, u := range about.Undecoded() {
			if len(u) > len(strings.Split(name, ".")) && strings.HasPrefix(u.String(), name+".") {
				r.fail("%s: there is no key %q", at, u.String())
			}
		}
		v.Set(fresh.Elem())
		if v.Kind() == reflect.Slice && v.Len() == 0 {
			v.SetZero() // an empty list is none
		}
		r.e.from[name] = at
		return
	}
	switch ok, err := put(v, x); {
	case !ok:
		r.errs = append(r.errs, &ValueError{at, name, r.shown(k, x), kind(v.Type())})
	case err != nil:
		r.fail("%s: %s is %s, which is %w", at, name, r.shown(k, x), err)
	default:
		r.e.from[name] = at
	}
}

func deep(t reflect.Type) bool {
	return t.Kind() == reflect.Map || t.Kind() == reflect.Slice && (t.Elem().Kind() == reflect.Struct || t.Elem().Kind() == reflect.Map)
}

// shown writes a value for a complaint, unless it is a secret.
func (r *reading) shown(k *Key, x any) string {
	if k.Secret {
		return "what cannot be shown here"
	}
	if s, ok := x.(string); ok {
		return quote(clip(s))
	}
	return clip(fmt.Sprint(x))
}

// environment takes the variables that belong to sections. One that belongs to a section and to no key of it is refused.
func (r *reading) environment() {
	byEnv := make(map[string]string)
	var names []string
	for i := range r.keys {
		byEnv[r.keys[i].Env()] = r.keys[i].Name
		names = append(names, r.keys[i].Env())
	}
	env := slices.Clone(r.in.Env)
	slices.Sort(env)
	for _, v := range env {
		name, text, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		key, known := byEnv[name]
		switch {
		case known && text != "": // an empty one is not set, so that a unit or a compose file may pass on what it has
			r.text(key, text, name)
		case !known && r.ofSection(name):
			if near, ok := Nearest(name, names); ok {
				r.fail("the variable %s means nothing; did you mean %s?", name, near)
			} else {
				r.fail("the variable %s means nothing; `dray config` lists the keys there are", name)
			}
		}
	}
}

// ofSection reports whether a variable looks like one of a section's.
func (r *reading) ofSection(name string) bool {
	return slices.ContainsFunc(r.sections(), func(s string) bool {
		return strings.HasPrefix(name, envPrefix+strings.ToUpper(s)+"_")
	})
}

// text takes a key's value from a variable or a flag.
func (r *reading) text(name, text, from string) {
	k := r.key(name)
	if k == nil {
		r.unknown(from, name)
		return
	}
	v := k.field(&r.e.Settings)
	switch ok, err := putText(v, text); {
	case !ok:
		r.errs = append(r.errs, &ValueError{from, name, r.shown(k, text), kind(v.Type())})
	case err != nil:
		r.fail("%s: %s is %s, which is %w", from, name, r.shown(k, text), err)
	default:
		r.e.from[name] = from
	}
}

// check has the sections look at their values, and says where those stand that they refuse.
func (r *reading) check() {
	if len(r.errs) > 0 {
		return // a value that could not be read would be complained about twice
	}
	for _, err := range flatten(r.e.Check()) {
		var wrong *ValueError
		if errors.As(err, &wrong) {
			wrong.Where = r.e.from[wrong.Key]
		} else if first, _, _ := strings.Cut(err.Error(), " "); r.e.from[first] != "" {
			err = fmt.Errorf("%s: %w", r.e.from[first], err)
		}
		r.errs = append(r.errs, err)
	}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range list.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}

func (r *reading) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

func (r *reading) unknown(at, name string) {
	section, _, _ := strings.Cut(name, ".")
	var here, all []string
	for i := range r.keys {
		all = append(all, r.keys[i].Name)
		if r.keys[i].Section == section {
			here = append(here, r.keys[i].Name)
		}
	}
	near, ok := Nearest(name, here)
	if !ok {
		near, ok = Nearest(name, all)
	}
	switch {
	case ok:
		r.fail("%s: there is no key %q; did you mean %s?", at, name, near)
	default:
		r.fail("%s: there is no key %q; there are %s", at, name, strings.Join(here, ", "))
	}
}

// place names a line of the file.
func (r *reading) place(line int) string {
	name := r.in.File
	if name == "" {
		name = "config.toml"
	}
	if line <= 0 {
		return name
	}
	return fmt.Sprintf("%s:%d", name, line)
}

func (r *reading) key(name string) *Key {
	for i := range r.keys {
		if r.keys[i].Name == name {
			return &r.keys[i]
		}
	}
	return nil
}

func (r *reading) sections() []string {
	var list []string
	for i := range r.keys {
		if s := r.keys[i].Section; s != "" && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

func (r *reading) topKeys() []string {
	var list []string
	for i := range r.keys {
		if r.keys[i].Section == "" {
			list = append(list, r.keys[i].Name)
		}
	}
	return list
}

// likeField finds a key whose second half is like a name that stands above the sections.
func (r *reading) likeField(name string) (string, bool) {
	var fields []string
	for i := range r.keys {
		fields = append(fields, r.keys[i].Field)
	}
	near, ok := Nearest(name, fields)
	if !ok {
		return "", false
	}
	return r.keys[slices.Index(fields, near)].Name, true
}

// inOrder lists the keys of a table as they stand in the file, so that complaints come in that order.
func (r *reading) inOrder(about toml.MetaData, below []string, table map[string]toml.Primitive) []string {
	var list []string
	for _, k := range about.Keys() {
		if len(k) > len(below) && slices.Equal([]string(k[:len(below)]), below) && !slices.Contains(list, k[len(below)]) {
			if _, ok := table[k[len(below)]]; ok {
				list = append(list, k[len(below)])
			}
		}
	}
	return list
}

// line tells on which line a value stands. The library says so only in errors, so it is given something to refuse.
func line(about *toml.MetaData, p toml.Primitive) int {
	var bad toml.ParseError
	if errors.As(about.PrimitiveDecode(p, &refuser{}), &bad) {
		return bad.Position.Line
	}
	return 0
}

// refuser refuses every value.
type refuser struct{}

// UnmarshalTOML refuses.
func (*refuser) UnmarshalTOML(any) error { return errors.New("refused") }
