//go:build linux || darwin || freebsd || openbsd || netbsd

package staging

import "golang.org/x/sys/unix"

// allocate returns a segment's memory, from the system.
func allocate() []byte {
	m, err := unix.Mmap(-1, 0, segmentSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, segmentSize) // it has a limit of mappings
	}
	return m
}

// release gives a segment's memory back. It is not to be used any more.
func release(m []byte) {
	if m != nil {
		unix.Munmap(m) // fails for what the system didn't give, which is the garbage collector's then
	}
}
