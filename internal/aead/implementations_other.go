//go:build !amd64

package aead

// implementations lists all there are for this architecture, the fastest first.
var implementations = []*Implementation{xcrypto, portable}
