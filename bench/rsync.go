package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// rsyncStopped is how rsync ends when it is told to.
const rsyncStopped = 20

// rsyncParties is rsync's daemon and its client, without ssh.
var rsyncParties = []party{{
	name: "rsync", wire: "rsync in clear, one checksum of the whole file", missing: needs("rsync"), silent: true,
	fill: func(_ context.Context, _ *suite, _ row, set *dataset, home string) (string, error) {
		conf := fmt.Sprintf("use chroot = false\nuid = %d\ngid = %d\n[bench]\npath = %s\nread only = true\n",
			os.Getuid(), os.Getgid(), filepath.Dir(set.path))
		return "", os.WriteFile(filepath.Join(home, "rsyncd.conf"), []byte(conf), 0o644)
	},
	serve: func(_ *suite, _ row, _ *dataset, home string) (command, error) {
		port, err := freePort()
		return command{
			path: "rsync", args: []string{
				"--daemon", "--no-detach", "--address=127.0.0.1", "--port=" + port,
				"--config=" + filepath.Join(home, "rsyncd.conf"), "--log-file=" + filepath.Join(home, "log"),
			},
			forks: true, listens: "127.0.0.1:" + port, stopped: rsyncStopped,
		}, err
	},
	address: func(_ context.Context, _ *suite, srv *server, _ string) (string, error) { return srv.what.listens, nil },
	get: func(_ *suite, g getting) command {
		from := fmt.Sprintf("rsync://%s/bench/%s", g.addr, filepath.Base(g.set.path))
		return command{path: "rsync", args: []string{from, g.out}, forks: true}
	},
}}
