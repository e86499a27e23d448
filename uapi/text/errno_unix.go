//go:build unix

package text

import "syscall"

// number returns the number that errno.h gives e.
func number(e syscall.Errno) int { return int(e) }

// fromNumber returns the error whose number in errno.h is n.
func fromNumber(n int) syscall.Errno { return syscall.Errno(n) }
