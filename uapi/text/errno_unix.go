//go:build unix

package text

import "syscall"

// number returns e as errno.h has it.
func number(e syscall.Errno) int { return int(e) }

// fromNumber returns what errno.h calls n.
func fromNumber(n int) syscall.Errno { return syscall.Errno(n) }
