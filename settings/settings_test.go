package settings

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the table in docs/settings.md")

// TestPlaces: each place has it over those before, and it is known where a value came from.
func TestPlaces(t *testing.T) {
	e, err := Read(Input{
		File: "config.toml",
		Text: []byte("preset = 'edge'\n\n[http]\nlisten = '127.0.0.1:1'\nhosts = ['a.example', 'b.example']\n\n[node]\nserve_peer = 1048577\n\n[log]\nlevel = 'info'\n"),
		Env: []string{
			"DRAY_HTTP_LISTEN=127.0.0.1:2", "DRAY_LOG_LEVEL=debug", "DRAY_HTTP_HOSTS=c.example, d.example", "DRAY_HOME=/nowhere",
			"PATH=/bin", "DRAY_LOG_FORMAT=",
		},
		Flags: []Flag{{Name: "--http", Key: "http.listen", Text: "127.0.0.1:3"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	edge := Edge()
	for _, row := range []struct {
		key        string
		got, want  any
		from, text string
	}{
		{"http.listen", e.HTTP.Listen, "127.0.0.1:3", "--http", `"127.0.0.1:3"`},
		{"log.level", e.Log.Level, "debug", "DRAY_LOG_LEVEL", `"debug"`},
		{"log.format", e.Log.Format, "text", "default", `"text"`},
		{"http.hosts", strings.Join(e.HTTP.Hosts, " "), "c.example d.example", "DRAY_HTTP_HOSTS", `["c.example", "d.example"]`},
		{"node.serve_peer", e.Node.ServePeer, Size(1<<20 + 1), "config.toml:8", `"1048577B"`},
		{"node.serve", e.Node.Serve, edge.Node.Serve, "preset edge", `"4MiB"`},
		{"jobs.most", e.Jobs.Most, edge.Jobs.Most, "default", `"10m"`},
		{"preset", e.Preset, "edge", "config.toml:1", `"edge"`},
	} {
		if row.got != row.want || e.From(row.key) != row.from {
			t.Errorf("%s is %v from %s, want %v from %s", row.key, row.got, e.From(row.key), row.want, row.from)
		}
		keys := Keys()
		k := keys[slices.IndexFunc(keys, func(k Key) bool { return k.Name == row.key })]
		if got := k.Value(&e.Settings); got != row.text {
			t.Errorf("%s is written %s, want %s", row.key, got, row.text)
		}
	}
}

// TestComplaints: what makes no sense is named with its place, the value and what would be right.
func TestComplaints(t *testing.T) {
	for _, row := range []struct {
		text string
		env  []string
		want []string
	}{
		{"[http]\n\nlisten = 4871\n", nil, []string{`c.toml:3: http.listen is 4871; right is a text in quotes`}},
		{"[http]\nlistne = 'off'\n", nil, []string{`c.toml:2: there is no key "http.listne"; did you mean http.listen?`}},
		{"[htpp]\nlisten = 'off'\n", nil, []string{`c.toml:1: there is no section or key "htpp"; did you mean http?`}},
		{"listen = 'off'\n", nil, []string{`c.toml:1: there is no key "listen" above the sections; did you mean http.listen?`}},
		{"zzzzzzzzzz = 1\n", nil, []string{`c.toml:1: there is no section "zzzzzzzzzz"; there are http,`}},
		{"http = 3\n", nil, []string{"c.toml:1: http is no table; right is [http]"}},
		{"[http]\nx = [\n", nil, []string{"c.toml:2: this is no TOML"}},
		{"[http]\nlisten = 'a'\nlisten = 'b'\n", nil, []string{"c.toml:3: this is no TOML"}},
		{"http.listen = 'nowhere'\n", nil, []string{`c.toml:1: http.listen is "nowhere"; right is HOST:PORT`}},
		{"[http]\nlisten = '127.0.0.1:70000'\n", nil, []string{`c.toml:2: http.listen is "127.0.0.1:70000"`}},
		{"[http]\nconnections = 5\n", nil, []string{"c.toml:2: http.connections is 5; right is between 16 and 1048576"}},
		{"[http]\nconnections = 5.5\n", nil, []string{"c.toml:2: http.connections is 5.5; right is a whole number"}},
		{"[http]\nhosts = 'a'\n", nil, []string{`c.toml:2: http.hosts is "a"; right is a list of texts`}},
		{"[http]\nhosts = ['a:80']\n", nil, []string{`c.toml:2: http.hosts is "a:80"; right is names`}},
		{"[http]\nidle_timeout = 30\n", nil, []string{`c.toml:2: http.idle_timeout is 30; right is a time span, such as "30s"`}},
		{"[http]\nidle_timeout = '-3s'\n", nil, []string{`c.toml:2: http.idle_timeout is "-3s", which is no time span`}},
		{"[http]\nidle_timeout = '9h'\n", nil, []string{`c.toml:2: http.idle_timeout is 9h; right is between 1s and 1h`}},
		{"[http]\ntoken = 'a secret'\n", nil, []string{`c.toml:2: http.token has 8 characters; right are 16 or more`}},
		{"[http]\ntoken = 12345678901234567\n", nil, []string{`c.toml:2: http.token is what cannot be shown here; right is a text in quotes`}},
		{"[http]\ncert = 'x'\n", nil, []string{`c.toml:2: http.cert is "x"; right is set together with http.key`}},
		{"[node]\nserve = 'lots'\n", nil, []string{`c.toml:2: node.serve is "lots", which is no size; right is one like 10GB`}},
		{"[node]\nserve = '1kB'\n", nil, []string{`c.toml:2: node.serve is 1kB; right is between 4MiB and 4GiB`}},
		{"preset = 'edgy'\n", nil, []string{`c.toml:1: preset is "edgy"; right is balanced, low-latency, throughput, edge or federated; did you mean edge?`}},
		{"preset = 3\n", nil, []string{`c.toml:1: preset is 3; right is a text in quotes`}},
		{"[jobs]\nfirst = '1h'\nmost = '1m'\n", nil, []string{`c.toml:3: jobs.most is 1m; right is between 1h and 24h`}},
		{"", []string{"DRAY_HTTP_LISTN=x"}, []string{"the variable DRAY_HTTP_LISTN means nothing; did you mean DRAY_HTTP_LISTEN?"}},
		{"", []string{"DRAY_HTTP_CONNECTIONS=many"}, []string{`DRAY_HTTP_CONNECTIONS: http.connections is "many"; right is a whole number`}},
		{"", []string{"DRAY_NODE_SERVE=2B"}, []string{`DRAY_NODE_SERVE: node.serve is 2B; right is between`}},
		{"[log]\nlevel = 'x'\nformat = 'y'\n", nil, []string{`c.toml:2: log.level is "x"`, `c.toml:3: log.format is "y"`}},
	} {
		_, err := Read(Input{File: "c.toml", Text: []byte(row.text), Env: row.env})
		if err == nil {
			t.Errorf("%q %v: no complaint, want %q", row.text, row.env, row.want)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(row.want) {
			t.Errorf("%q %v: %q, want %d complaints", row.text, row.env, lines, len(row.want))
			continue
		}
		for i, w := range row.want {
			if !strings.HasPrefix(lines[i], w) {
				t.Errorf("%q %v: %s\nwant %s", row.text, row.env, lines[i], w)
			}
		}
		if strings.Contains(err.Error(), "a secret") || strings.Contains(err.Error(), "1234567890") {
			t.Errorf("a complaint shows a secret: %v", err)
		}
	}
}

// TestPrintReads: what is printed is read back to the same settings, but for what is secret; and a template sets nothing.
func TestPrintReads(t *testing.T) {
	for _, name := range Presets() {
		from, err := Read(Input{Env: []string{
			"DRAY_PRESET=" + name, "DRAY_HTTP_HOSTS=a.example,b.example", "DRAY_HTTP_TOKEN=0123456789abcdef", "DRAY_UPSTREAM_TOKEN=hf_0123456789abcdef", `DRAY_HTTP_CERT=a"\b`, "DRAY_HTTP_KEY=k",
		}})
		if err != nil {
			t.Fatal(err)
		}
		text := from.Print()
		if strings.Contains(string(text), "0123456789abcdef") {
			t.Error("a token is printed")
		}
		back, err := Parse(text, Default())
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		want := from.Settings
		want.HTTP.Token, want.Upstream.Token = "", ""
		if !reflect.DeepEqual(back, want) {
			t.Errorf("read back %+v, want %+v", back, want)
		}
		template, err := Template(name)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Read(Input{Text: template})
		if preset, _ := presetOf(name); err != nil || !reflect.DeepEqual(e.Settings, preset) {
			t.Errorf("the template of %s says %+v, %v", name, e, err)
		}
		uncommented := strings.NewReplacer("#", "", "# ", "# ").Replace(string(template))
		for _, k := range Keys() {
			if !strings.Contains(uncommented, k.Field+" = ") {
				t.Errorf("the template of %s lacks %s", name, k.Name)
			}
		}
	}
	if _, err := Template("none"); err == nil {
		t.Error("there is a template of no preset")
	}
}

// TestPresetsDiffer: each preset makes sense, and is like no other.
func TestPresetsDiffer(t *testing.T) {
	var seen []Settings
	for _, name := range Presets() {
		s, ok := presetOf(name)
		if !ok || s.Preset != name {
			t.Errorf("the preset %s calls itself %q", name, s.Preset)
		}
		if err := s.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.Preset = ""
		for _, other := range seen {
			if reflect.DeepEqual(s, other) {
				t.Errorf("%s is as another", name)
			}
		}
		seen = append(seen, s)
	}
}

// TestKeys: every key is documented and has a name that a variable can have.
func TestKeys(t *testing.T) {
	envs := map[string]bool{}
	for _, k := range Keys() {
		if k.Doc == "" || k.Field == "" || k.Field != strings.ToLower(k.Field) || strings.Contains(k.Field, "-") {
			t.Errorf("%s: %q", k.Name, k.Doc)
		}
		if envs[k.Env()] {
			t.Errorf("two keys have the variable %s", k.Env())
		}
		envs[k.Env()] = true
	}
}

// TestDocs: the page lists the keys there are. -update rewrites it.
func TestDocs(t *testing.T) {
	const page, begin, end = "../docs/settings.md", "<!-- keys: made by go test ./settings -update -->\n", "<!-- end of keys -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s lacks its marks", page)
	}
	want := head + begin + Table() + "\n" + PresetTable() + end + tail
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is not current; go test ./settings -update rewrites it", page)
	}
	if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestKinds(t *testing.T) {
	for _, row := range []struct {
		in    string
		bytes int64
		out   string
	}{
		{"10GB", 1e10, "10GB"},
		{"64KiB", 64 << 10, "64KiB"},
		{" 1.5 MiB ", 3 << 19, "1536KiB"},
		{"4096", 4096, "4KiB"},
		{"7", 7, "7B"},
		{"0", 0, "0B"},
		{"2gib", 2 << 30, "2GiB"},
		{"3k", 3000, "3kB"},
		{"5Mi", 5 << 20, "5MiB"},
		{"1.2.3MB", -1, ""},
		{"MB", -1, ""},
		{"1XB", -1, ""},
		{"-1", -1, ""},
		{"", -1, ""},
		{"99999999999TB", -1, ""},
		{"NaN", -1, ""},
	} {
		var s Size
		switch err := s.UnmarshalText([]byte(row.in)); {
		case row.bytes < 0 && err == nil:
			t.Errorf("%q is read as %d", row.in, s)
		case row.bytes >= 0 && (err != nil || int64(s) != row.bytes || s.String() != row.out):
			t.Errorf("%q is %d, written %s, %v", row.in, s, s, err)
		}
	}
	for _, row := range []struct {
		in  string
		d   time.Duration
		out string
	}{
		{"30s", 30 * time.Second, "30s"},
		{"60s", time.Minute, "1m"},
		{"2h", 2 * time.Hour, "2h"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"250ms", 250 * time.Millisecond, "250ms"},
		{"0", 0, "0s"},
		{"3", -1, ""},
		{"-1s", -1, ""},
		{"x", -1, ""},
	} {
		var d Duration
		switch err := d.UnmarshalText([]byte(row.in)); {
		case row.d < 0 && err == nil:
			t.Errorf("%q is read as %v", row.in, d)
		case row.d >= 0 && (err != nil || time.Duration(d) != row.d || d.String() != row.out):
			t.Errorf("%q is %v, %v", row.in, d, err)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"listen", "token", "token_file", "hosts"}
	for in, want := range map[string]string{
		"listne": "listen", "LISTEN": "listen", "tokn": "token", "tokenfile": "token_file", "host": "hosts", "tok": "token", "zzz": "", "": "",
	} {
		if got, _ := Nearest(in, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", in, got, want)
		}
	}
}

// FuzzRead: no text and no variable makes it panic, and what is accepted is printed and read again as it was.
func FuzzRead(f *testing.F) {
	f.Add("[http]\nlisten = 'off'\n", "DRAY_HTTP_HOSTS=a,b")
	f.Add("preset = 'edge'\nnode.serve = '10MB'\n", "DRAY_NODE_X=1")
	f.Add("[[http]]\n[http.listen]\na.b.c = {x = 1}\n", "DRAY_")
	f.Fuzz(func(t *testing.T, text, env string) {
		e, err := Read(Input{Text: []byte(text), Env: []string{env}})
		if err != nil {
			var wrong *ValueError
			if errors.As(err, &wrong) && wrong.Right == "" {
				t.Errorf("a complaint says nothing of what is right: %v", err)
			}
			return
		}
		back, err := Parse(e.Print(), Default())
		if err != nil {
			t.Fatalf("%v\n%s", err, e.Print())
		}
		for _, k := range Keys() {
			if k.Secret {
				k.field(&back).Set(k.field(&e.Settings))
			}
		}
		if fmt.Sprint(back) != fmt.Sprint(e.Settings) {
			t.Errorf("read back %+v, want %+v", back, e.Settings)
		}
		if int64(e.Node.Serve) > math.MaxInt32*2 {
			t.Errorf("%v is out of range", e.Node.Serve)
		}
	})
}
