package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"dray/settings"
)

var cmdConfig = &cobra.Command{
	Use:   "config",
	Short: "print the settings, check them, or write a file of them",
	Long: `Config prints the settings that ` + "`dray serve`" + ` would have on this home, as a file, each with what it means and where its
value comes from: the default, a preset, a line of the file config.toml in the home, a variable or a flag. Each has it over
those before. What is secret is not printed. A running daemon has those with which it was started.

With --json it prints {"settings":[{"key":…,"value":…,"from":…}]}, the values as they stand in a file.`,
	Example: `  dray config
  DRAY_HTTP_LISTEN=off dray config
  dray config init
  dray config check`,
	Args: arguments(0, 0, ""),
}

var cmdConfigCheck = &cobra.Command{
	Use:   "check [FILE]",
	Short: "say whether a file of settings makes sense",
	Long: `Check reads the home's config.toml, or FILE, with the variables that are set, and says what in them makes no sense, where, and
what would be right. It exits with 1 when something is wrong.

With --json it prints {"file":…,"ok":…,"errors":[…]}.`,
	Example: `  dray config check
  dray config check /etc/dray/config.toml`,
	Args: arguments(0, 1, "a FILE"),
}

var cmdConfigInit = &cobra.Command{
	Use:   "init",
	Short: "write a file of settings that documents each",
	Long: `Init writes config.toml into the home, with every key, what it means and its default, each behind a #. It does not overwrite
one. With --token it makes up a token for HTTP and writes it there; the file can be read by its owner alone.

With --json it prints {"file":…}.`,
	Example: `  dray config init
  dray config init --preset edge --token`,
	Args: arguments(0, 0, ""),
}

func newConfig(e *env) *cobra.Command {
	c := bind(e, cmdConfig, runConfig)
	args := c.Args
	c.Args = func(c *cobra.Command, list []string) error {
		if len(list) > 0 {
			return unknownCommand(c, list[0])
		}
		return args(c, list)
	}
	presetFlag(e, c)
	token := false
	init := bind(e, cmdConfigInit, func(_ context.Context, e *env, _ []string) error { return runConfigInit(e, token) })
	init.Flags().BoolVar(&token, "token", false, "make up a token that clients of HTTP must have")
	presetFlag(e, init)
	c.AddCommand(bind(e, cmdConfigCheck, runConfigCheck), init)
	return c
}

// presetFlag adds --preset.
func presetFlag(e *env, c *cobra.Command) {
	names := settings.Presets()
	c.Flags().StringVar(&e.preset, "preset", "", "whose defaults count: "+strings.Join(names, ", "))
	_ = c.RegisterFlagCompletionFunc("preset", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// setting is one key as --json prints it.
type setting struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
	From  string `json:"from"`
}

func runConfig(_ context.Context, e *env, _ []string) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	s, err := e.readSettings(home)
	if err != nil {
		return err
	}
	if !e.json {
		_, err := e.stdout.Write(s.Print())
		return err
	}
	var list []setting
	for _, k := range settings.Keys() {
		one := setting{Key: k.Name, From: s.From(k.Name)}
		if !k.Secret {
			one.Value = k.Value(&s.Settings)
		}
		list = append(list, one)
	}
	return e.emit(map[string]any{"settings": list})
}

func runConfigCheck(_ context.Context, e *env, args []string) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	path := configPath(home)
	if len(args) > 0 {
		path = args[0]
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && len(args) == 0 {
		err = nil // then there are defaults
	}
	if err != nil {
		return err
	}
	_, bad := settings.Read(settings.Input{File: path, Text: text, Env: os.Environ()})
	if e.json {
		lines := []string{}
		if bad != nil {
			lines = strings.Split(bad.Error(), "\n")
		}
		if err := e.emit(map[string]any{"file": path, "ok": bad == nil, "errors": lines}); err != nil {
			return err
		}
	} else if bad == nil {
		e.tell("%s makes sense", path)
	}
	return bad
}

const tokenBytes = 24

func runConfigInit(e *env, token bool) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	preset := e.preset
	if preset == "" {
		preset = settings.Default().Preset
	}
	text, err := settings.Template(preset)
	if err != nil {
		return usageError{err}
	}
	if token {
		var random [tokenBytes]byte
		rand.Read(random[:])
		line := "token = \"" + base64.RawURLEncoding.EncodeToString(random[:]) + "\"\n"
		text = []byte(strings.Replace(string(text), "#token = \"\"\n", line, 1))
	}
	if err := makeHome(home); err != nil {
		return err
	}
	path := configPath(home)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usagef("there is a %s already; edit it, or move it away first", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if e.json {
		return e.emit(map[string]string{"file": path})
	}
	e.printf("%s", path)
	if token {
		e.tell("the token of HTTP stands there; clients send it as Authorization: Bearer TOKEN")
	}
	return nil
}

// warnOfSecrets says when others can read a token.
func (e *env) warnOfSecrets(home string, s *settings.Effective) {
	if s.HTTP.Token == "" || !strings.HasPrefix(s.From("http.token"), configPath(home)) {
		return
	}
	if info, err := os.Stat(configPath(home)); err == nil && info.Mode().Perm()&0o077 != 0 {
		fmt.Fprintf(e.stderr, "dray: warning: others can read the token in %s (%04o); chmod 600 it\n", configPath(home), info.Mode().Perm())
	}
}
