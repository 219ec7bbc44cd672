// Package faults is a bench for bad days: real processes get a file through a proxy that misbehaves, from peers that lie,
// stop or die, onto disks that fill up or break, and the bench says whether the file came, how much longer that took than
// without the fault, how many bytes came again, and whether anybody was left without a reason for the wait.
//
// # Terms
//
// A holder is a process that has the file, each in a network namespace of its own where that is possible, so that the only
// way to it is its proxy. A proxy joins TCP connections in user space, and can freeze, slow down, cut, shorten or change
// what passes. The line is what all proxies of a run share: the getter's rate. A fault is a row: what is set up, what
// happens when so much of the file has come, how long it lasts, and what is then allowed. A program is who serves and gets:
// dray, and on the faults that apply curl, aria2, libtorrent and boxo.
//
// The wire is the number of bytes that the proxies handed to the getter. What came again is the wire less that of the
// same program's run without a fault.
//
// A silence is a time in which a get made no progress and said nothing of why.
//
// # What it does not do
//
// It does not measure speed: the line's rate is low, so that faults fall into the middle of a transfer. It cannot lose
// single packets, as a user-space proxy sees bytes and not packets.
package faults
