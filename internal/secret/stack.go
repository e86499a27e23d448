package secret

// stackCleared is how many bytes of stack OnClearedStack clears. A handshake with X25519, BLAKE2s and ChaCha20 uses less
// than half.
const stackCleared = 8 << 10

// OnClearedStack calls f, which handles keys, and clears the stack that it used. It makes the stack large enough first:
// growing it copies it, and what was there isn't cleared.
func OnClearedStack(f func()) {
	clearStack()
	f()
	clearStack()
}

// clearStack clears the stack below its caller's frame, where other calls had theirs.
//
//go:noinline
func clearStack() {
	var b [stackCleared]byte
	Clear(b[:])
}
