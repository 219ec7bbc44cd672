package hub

import (
	"context"
	"io"
	"maps"
	"strings"
	"time"

	"dray/names"
)

// What a repository says of itself: the front matter of its README.md and its config.json.

const (
	cardBytes       = 256 << 10       // of a README or a configuration that are looked at
	cardTime        = 3 * time.Second // that they may take to come
	rememberedCards = 256
)

// describe adds what the commit says of itself, as far as that is here in time.
func (s *Server) describe(ctx context.Context, c *names.Commit, about map[string]any) {
	if known, ok := s.cards.get(commitKey(c)); ok {
		maps.Copy(about, known)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cardTime)
	defer cancel()
	found := make(map[string]any)
	whole := true
	if text, ok := s.read(ctx, c, "README.md"); ok {
		front := frontMatter(string(text))
		for _, k := range []string{"pipeline_tag", "library_name"} {
			if v, ok := front[k].(string); ok && v != "" {
				found[k] = v
			}
		}
		if len(front) > 0 {
			found["cardData"] = front
			found["tags"] = tagsOf(front)
		}
	} else {
		whole = false
	}
	if c.Repo.Kind == names.Model {
		if text, ok := s.read(ctx, c, "config.json"); !ok {
			whole = false
		} else if config := configOf(text); config != nil {
			found["config"] = config
		}
	}
	if whole {
		s.cards.put(commitKey(c), found)
	}
	maps.Copy(about, found)
}

// read returns a small file's text, or none if there is no such file; false if it did not come.
func (s *Server) read(ctx context.Context, c *names.Commit, path string) ([]byte, bool) {
	f, ok := c.Find(path)
	if !ok || f.Size > cardBytes {
		return nil, true
	}
	r, err := s.cfg.Library.Open(ctx, c, f)
	if err != nil {
		return nil, false
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, cardBytes))
	return text, err == nil
}

// frontMatter reads the part of a README between two lines of three dashes, as far as it is simple YAML: "key: value", and lists
// of one level. What is deeper is left out.
func frontMatter(text string) map[string]any {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	rest, ok := strings.CutPrefix(text, "---\n")
	if !ok {
		return nil
	}
	front, _, ok := strings.Cut(rest+"\n", "\n---\n")
	if !ok {
		return nil
	}
	m := make(map[string]any)
	key := ""
	for line := range strings.Lines(front) {
		line = strings.TrimRight(line, " \t\n")
		if item, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "- "); ok && key != "" {
			if list, ok := m[key].([]string); ok || m[key] == nil {
				if v, plain := scalar(item); plain && !strings.Contains(item, ": ") {
					m[key] = append(list, v)
				}
			}
			continue
		}
		if line == "" || line[0] == ' ' || line[0] == '#' {
			continue
		}
		k, v, ok := strings.Cut(line, ":")
		if !ok {
			key = ""
			continue
		}
		key = k
		switch v = strings.TrimSpace(v); {
		case v == "":
		case strings.HasPrefix(v, "[") && strings.HasSuffix(v, "]"):
			list := []string{}
			for x := range strings.SplitSeq(v[1:len(v)-1], ",") {
				if y, plain := scalar(strings.TrimSpace(x)); plain && y != "" {
					list = append(list, y)
				}
			}
			m[key] = list
		default:
			if y, plain := scalar(v); plain {
				m[key] = y
			}
		}
	}
	return m
}

// scalar reads a plain or quoted text.
func scalar(s string) (string, bool) {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1], true
	}
	if s, _, _ = strings.Cut(s, " #"); strings.ContainsAny(s[:min(1, len(s))], "{[|>&*!%@`") {
		return "", false
	}
	return strings.TrimSpace(s), true
}

// tagsOf returns the tags that the Hub makes of a front matter: its own, and those that say in which language, under which licence
// and for what it is.
func tagsOf(front map[string]any) []string {
	tags := []string{}
	if v, ok := front["library_name"].(string); ok && v != "" {
		tags = append(tags, v)
	}
	add := func(key, prefix string) {
		switch v := front[key].(type) {
		case string:
			tags = append(tags, prefix+v)
		case []string:
			for _, x := range v {
				tags = append(tags, prefix+x)
			}
		}
	}
	add("tags", "")
	add("pipeline_tag", "")
	add("language", "")
	add("license", "license:")
	add("base_model", "base_model:")
	return tags
}
