//go:build !amd64

package aead

// ways are all there are, the best first.
var ways = []*Way{xcrypto, portable}
