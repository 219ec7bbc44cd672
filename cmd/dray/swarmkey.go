package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"dray/transport/p2p"
)

var cmdSwarmKey = &cobra.Command{
	Use:   "swarm-key",
	Short: "print or create the key of a private swarm",
	Long: `Swarm-key prints the home's swarm key or, with --create, makes one: a file swarm.key in the home, in the form that Kubo uses.
Hosts with the same key connect to each other, and nobody else gets past the first bytes of a connection. Put the file into
the homes of all, by a way that nobody reads along, or name it with --swarm-key FILE. A daemon takes it when it starts.

A private swarm has TCP and WebSocket only: QUIC and WebTransport know no swarm keys. Nor are there connections beside libp2p's for
blocks, which makes large transfers a little slower.

With --json it prints {"path":…,"key":…,"fingerprint":…}; the fingerprint tells keys apart and is no secret.`,
	Example: `  dray swarm-key --create
  dray swarm-key > /media/stick/swarm.key`,
	Args: arguments(0, 0, ""),
}

func newSwarmKey(e *env) *cobra.Command {
	var create bool
	c := bind(e, cmdSwarmKey, func(_ context.Context, e *env, _ []string) error { return runSwarmKey(e, create) })
	c.Flags().BoolVar(&create, "create", false, "make a key; there must be none")
	return c
}

func swarmKeyPath(home string) string { return filepath.Join(home, "swarm.key") }

func runSwarmKey(e *env, create bool) error {
	home, err := e.home()
	if err != nil {
		return err
	}
	path := swarmKeyPath(home)
	var key p2p.SwarmKey
	if create {
		if key, err = p2p.CreateSwarmKey(path); errors.Is(err, fs.ErrExist) {
			return usagef("there is a swarm key in %s already; remove it first if it is to be another", path)
		}
	} else if key, err = p2p.ReadSwarmKey(path); errors.Is(err, fs.ErrNotExist) {
		return usagef("there is no swarm key in %s; `dray swarm-key --create` makes one, or copy that of the swarm there", home)
	}
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(struct {
			Path        string `json:"path"`
			Key         string `json:"key"`
			Fingerprint string `json:"fingerprint"`
		}{path, key.Encode(), key.String()})
	}
	fmt.Fprint(e.stdout, key.Encode())
	e.tell("swarm key %v, in %s", key, path)
	return nil
}

// findSwarmKey returns the key of --swarm-key, else of the home, else none.
func (e *env) findSwarmKey(home string) (p2p.SwarmKey, error) {
	if e.swarmKey != "" {
		key, err := p2p.ReadSwarmKey(e.swarmKey)
		if errors.Is(err, fs.ErrNotExist) {
			err = usagef("there is no swarm key in %q", e.swarmKey)
		}
		return key, err
	}
	key, err := p2p.ReadSwarmKey(swarmKeyPath(home))
	if errors.Is(err, fs.ErrNotExist) {
		return p2p.SwarmKey{}, nil
	}
	return key, err
}

// uselessSwarmKey is the error when --swarm-key is given and the daemon has its own.
func (e *env) uselessSwarmKey(home string) error {
	if e.swarmKey == "" {
		return nil
	}
	return usagef("a daemon serves %s already, so --swarm-key has no use; give it to the daemon, or stop that", home)
}
