package settings

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Print writes settings as a file, with where each value came from. What is secret is left out, which a remark says; the rest
// is read back to the same settings.
func (e *Effective) Print() []byte {
	return write(&e.Settings, func(b *bytes.Buffer, k *Key, value string) {
		switch {
		case k.Secret && value != `""`:
			fmt.Fprintf(b, "# %s is set, and not shown (%s)\n", k.Field, e.From(k.Name))
		default:
			fmt.Fprintf(b, "%s = %s # %s\n", k.Field, value, e.From(k.Name))
		}
	})
}

// Template writes a file that sets nothing and documents everything, with the values that a preset has.
func Template(preset string) ([]byte, error) {
	s, ok := presetOf(preset)
	if !ok {
		return nil, checkPreset(preset)
	}
	return write(&s, func(b *bytes.Buffer, k *Key, value string) {
		remark := "#"
		if k.Name == "preset" && preset != Default().Preset {
			remark = ""
		}
		fmt.Fprintf(b, "%s%s = %s\n", remark, k.Field, value)
	}), nil
}

// write writes a file: each key with its meaning above it.
func write(s *Settings, line func(*bytes.Buffer, *Key, string)) []byte {
	var b bytes.Buffer
	section := ""
	for _, k := range Keys() {
		if k.Section != section {
			section = k.Section
			fmt.Fprintf(&b, "\n[%s]\n", section)
		}
		fmt.Fprintf(&b, "# %s\n", k.Doc)
		line(&b, &k, k.Value(s))
	}
	return b.Bytes()
}

// Table writes the keys as a table in Markdown, for the documentation.
func Table() string {
	var b strings.Builder
	s := Default()
	b.WriteString("| key | default | meaning |\n| --- | --- | --- |\n")
	for _, k := range Keys() {
		value := k.Value(&s)
		if value == `""` || value == "[]" || value == "{}" {
			value = ""
		} else {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Name, value, strings.ReplaceAll(k.Doc, "|", "\\|"))
	}
	return b.String()
}

func sortedKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

// PresetTable writes what each preset sets, as a table in Markdown, for the documentation.
func PresetTable() string {
	var b strings.Builder
	names := Presets()
	b.WriteString("| key | " + strings.Join(names, " | ") + " |\n|" + strings.Repeat(" --- |", len(names)+1) + "\n")
	plain := Default()
	for _, k := range Keys() {
		differs, line := false, ""
		for _, name := range names {
			s, _ := presetOf(name)
			value := k.Value(&s)
			if value == k.Value(&plain) && name != names[0] {
				line += "  |"
				continue
			}
			differs = differs || name != names[0]
			line += " " + strings.Trim(value, `"`) + " |"
		}
		if differs && k.Section != "" {
			b.WriteString("| `" + k.Name + "` |" + line + "\n")
		}
	}
	return b.String()
}
