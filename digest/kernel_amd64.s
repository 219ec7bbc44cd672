//go:build amd64 && gc && !noasm && !appengine

// This file is empty: its presence lets the compiler accept the declaration without a body in kernel_amd64.go.
