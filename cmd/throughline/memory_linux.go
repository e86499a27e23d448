package main

import "golang.org/x/sys/unix"

// hideMemory keeps other processes of the same user from reading this one's memory, where keys are, and the kernel from
// writing it to a core file. root can read it nevertheless. See prctl(2), PR_SET_DUMPABLE, and ptrace(2).
func hideMemory() {
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // it can't fail with these arguments
}
