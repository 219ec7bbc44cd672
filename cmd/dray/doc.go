// Command dray moves files and directories between machines: peer to peer, addressed by content, verified, resumable.
//
// # How it is built
//
// Each subcommand is one file with its help text (cmdX), its flags and a function runX. What a command wants done with a
// home is a task (task.go): a request, notes on the way, a result. A task runs in this process when nobody else has the
// home open (house.go), and in the daemon when one does (control.go, remote.go); the command does not see which.
// Errors become exit codes in one place (exit.go).
//
// # Terms
//
// A home is the directory with a host's key and store. A daemon is a process that keeps a home open and serves it: dray
// serve, or dray share. A target is what to get: a CID or a ticket, and a path below it.
//
// # What it does not do
//
// It decides nothing about transfers: that is packages node and exchange. It has no configuration but its flags and
// DRAY_HOME.
package main
