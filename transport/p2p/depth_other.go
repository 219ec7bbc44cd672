//go:build !linux

package p2p

// shallow does nothing where the kernel has no say in how deep its buffers are.
func shallow(tcpConn) {}
