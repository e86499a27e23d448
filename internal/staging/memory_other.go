//go:build !linux && !darwin && !freebsd && !openbsd && !netbsd

package staging

// allocate returns a segment's memory.
func allocate() []byte { return make([]byte, segmentSize) }

// release leaves a segment's memory to the garbage collector. It is not to be used any more.
func release([]byte) {}
