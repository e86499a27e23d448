//go:build !linux

package relay

// spliced says that the standard library moves bytes between two TCP sockets inside of the kernel: not here, where its
// ReadFrom would allocate a buffer for each call.
const spliced = false
