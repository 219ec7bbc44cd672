package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dray/settings"
)

var (
	// docCommand is a call of dray in code, up to what belongs to the shell.
	docCommand = regexp.MustCompile("(?m)(?:`|^[ ]*(?:\\$ )?(?:bin/)?)dray ([^`|\n&#>;]*)")
	homeFlag   = regexp.MustCompile(`--home \S+`)
	docFlag    = regexp.MustCompile(`^--[a-z][a-z0-9-]*`)
	docKey     = regexp.MustCompile("`([a-z]+\\.[a-z_]+)`")
)

// TestDocs: the commands, flags and settings that the documentation names are there, and each command is in it.
func TestDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(&env{})
	root.InitDefaultCompletionCmd()
	keys := make(map[string]bool)
	sections := make(map[string]bool)
	for _, k := range settings.Keys() {
		keys[k.Name], sections[k.Section] = true, true
	}
	var all strings.Builder
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
		for _, m := range docCommand.FindAllStringSubmatch(string(text), -1) {
			if strings.HasPrefix(m[1], "…") {
				continue // any command
			}
			words := strings.Fields(homeFlag.ReplaceAllString(m[1], ""))
			c, rest, err := root.Find(slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.HasPrefix(w, "-") }))
			if err != nil || c == root && len(rest) > 0 && rest[0] == strings.ToLower(rest[0]) {
				t.Errorf("%s: dray %s: there is no such command", page, m[1])
				continue
			}
			for _, w := range words {
				if flag := docFlag.FindString(w); flag != "" && c.Flag(flag[2:]) == nil && flag != "--help" {
					t.Errorf("%s: dray %s: %s has no %s", page, m[1], c.CommandPath(), flag)
				}
			}
		}
		for _, m := range docKey.FindAllStringSubmatch(string(text), -1) {
			if section, _, _ := strings.Cut(m[1], "."); sections[section] && !keys[m[1]] {
				t.Errorf("%s: there is no setting %s", page, m[1])
			}
		}
	}
	for _, c := range root.Commands() {
		if !strings.Contains(all.String(), "dray "+c.Name()) && !strings.Contains(all.String(), "`"+c.Name()+"`") {
			t.Errorf("no page names %s", c.CommandPath())
		}
	}
}
