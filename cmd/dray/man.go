package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var cmdMan = &cobra.Command{
	Use:   "man DIR",
	Short: "write the manual pages into a directory",
	Long: `Man writes one page of section 1 for each command, as ` + "`man`" + ` reads it, into a directory, which it makes if need be. The pages
bear the date of SOURCE_DATE_EPOCH, seconds since 1970, or today's.

With --json it prints {"dir":…,"pages":…}.`,
	Example: `  dray man ~/.local/share/man/man1`,
	Args:    arguments(1, 1, "a DIR"),
}

func newMan(e *env) *cobra.Command {
	var c *cobra.Command
	c = bind(e, cmdMan, func(_ context.Context, e *env, args []string) error {
		n, err := writeMan(c.Root(), args[0])
		if err != nil {
			return err
		}
		if e.json {
			return e.emit(struct {
				Dir   string `json:"dir"`
				Pages int    `json:"pages"`
			}{args[0], n})
		}
		e.printf("%d pages in %s", n, args[0])
		return nil
	})
	return c
}

// writeMan writes the pages of a command and those below it, and returns how many there are.
func writeMan(root *cobra.Command, dir string) (pages int, err error) {
	at := time.Now()
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, usagef("SOURCE_DATE_EPOCH is %q; right are seconds since 1970", text)
		}
		at = time.Unix(seconds, 0)
	}
	at = at.UTC()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.DisableAutoGenTag = true
	var write func(c *cobra.Command) error
	write = func(c *cobra.Command) error {
		var page bytes.Buffer
		h := &doc.GenManHeader{Section: "1", Date: &at, Source: "Dray", Manual: "Dray Manual"}
		if err := doc.GenMan(c, h, &page); err != nil {
			return fmt.Errorf("%s: %w", c.CommandPath(), err)
		}
		pages++
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		errs := []error{os.WriteFile(filepath.Join(dir, name), page.Bytes(), 0o644)}
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				errs = append(errs, write(sub))
			}
		}
		return errors.Join(errs...)
	}
	return pages, write(root)
}
