package settings

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Key is one thing that can be set.
type Key struct {
	// Name is the key, such as http.listen; Section its first half, or "" of those above the sections.
	Name, Section, Field string
	// Doc says what it means.
	Doc string
	// Secret says that its value is not to be shown.
	Secret bool

	index []int
}

// Env is the variable that overrides the key.
func (k *Key) Env() string { return envPrefix + strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_")) }

const envPrefix = "DRAY_"

// Keys lists every key, in the order in which they are printed: those above the sections first.
func Keys() []Key {
	var top, rest []Key
	t := reflect.TypeFor[Settings]()
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("toml")
		if !isSection(f.Type) {
			top = append(top, Key{Name: name, Field: name, Doc: f.Tag.Get("doc"), index: []int{i}})
			continue
		}
		for j := range f.Type.NumField() {
			g := f.Type.Field(j)
			key := g.Tag.Get("toml")
			if key == "" {
				continue
			}
			rest = append(rest, Key{
				Name: name + "." + key, Section: name, Field: key, Doc: g.Tag.Get("doc"), Secret: g.Tag.Get("secret") == "true",
				index: []int{i, j},
			})
		}
	}
	return append(top, rest...)
}

func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// field returns the place of a key's value in s.
func (k *Key) field(s *Settings) reflect.Value {
	return reflect.ValueOf(s).Elem().FieldByIndex(k.index)
}

// Value returns a key's value as it is written in a file.
func (k *Key) Value(s *Settings) string { return element(k.field(s)) }

// literal writes a value in TOML.
func literal(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return quote(v.String())
	case reflect.Slice, reflect.Array:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = literal(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Struct:
		var parts []string
		for i := range v.NumField() {
			if name := v.Type().Field(i).Tag.Get("toml"); name != "" {
				parts = append(parts, name+" = "+element(v.Field(i)))
			}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case reflect.Map:
		var parts []string
		for _, k := range sortedKeys(v) {
			parts = append(parts, quote(k.String())+" = "+element(v.MapIndex(k)))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case reflect.Float64:
		s := strconv.FormatFloat(v.Float(), 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	return fmt.Sprint(v.Interface())
}

func element(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return quote(string(text))
		}
	}
	return literal(v)
}

// quote writes a string as TOML does, which has other escapes than Go.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// kind says what a key's value may be, for complaints.
func kind(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `a time span, such as "30s"`
	case t == reflect.TypeFor[Size]():
		return `a size, such as "10GB" or 4096`
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return "a text in quotes"
	}
	switch t.Kind() {
	case reflect.String:
		return "a text in quotes"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return `a list of texts, such as ["a", "b"]`
		}
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a table"
	}
	return "a whole number"
}

// put sets a field to a value as the TOML reader makes it. It reports false when the value is of the wrong kind.
func put(v reflect.Value, x any) (ok bool, err error) {
	if u, is := v.Addr().Interface().(encoding.TextUnmarshaler); is {
		switch x := x.(type) {
		case string:
			return true, u.UnmarshalText([]byte(x))
		case int64:
			if _, size := u.(*Size); size {
				return true, u.UnmarshalText([]byte(strconv.FormatInt(x, 10)))
			}
		}
		return false, nil
	}
	switch v.Kind() {
	case reflect.String:
		s, is := x.(string)
		if is {
			v.SetString(s)
		}
		return is, nil
	case reflect.Bool:
		b, is := x.(bool)
		if is {
			v.SetBool(b)
		}
		return is, nil
	case reflect.Int, reflect.Int64, reflect.Int32:
		n, is := x.(int64)
		if is && v.OverflowInt(n) {
			return true, fmt.Errorf("too large")
		}
		if is {
			v.SetInt(n)
		}
		return is, nil
	case reflect.Float64:
		switch n := x.(type) {
		case float64:
			v.SetFloat(n)
			return true, nil
		case int64:
			v.SetFloat(float64(n))
			return true, nil
		}
		return false, nil
	case reflect.Slice:
		list, is := x.([]any)
		if !is {
			return false, nil
		}
		if len(list) == 0 {
			v.SetZero() // an empty list is none
			return true, nil
		}
		out := reflect.MakeSlice(v.Type(), len(list), len(list))
		for i, e := range list {
			if ok, err := put(out.Index(i), e); !ok || err != nil {
				return ok, err
			}
		}
		v.Set(out)
		return true, nil
	}
	return false, nil
}

// putText sets a field to what a variable or a flag says; lists are separated by commas.
func putText(v reflect.Value, text string) (ok bool, err error) {
	if u, is := v.Addr().Interface().(encoding.TextUnmarshaler); is {
		return true, u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return true, nil
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		v.SetBool(b)
		return err == nil, nil
	case reflect.Int, reflect.Int64, reflect.Int32:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
		return err == nil, nil
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		v.SetFloat(n)
		return err == nil, nil
	case reflect.Slice:
		var parts []string
		for p := range strings.SplitSeq(text, ",") {
			if p = strings.TrimSpace(p); p != "" {
				parts = append(parts, p)
			}
		}
		out := reflect.MakeSlice(v.Type(), len(parts), len(parts))
		for i, p := range parts {
			if ok, err := putText(out.Index(i), p); !ok || err != nil {
				return ok, err
			}
		}
		v.Set(out)
		return true, nil
	}
	return false, nil
}
