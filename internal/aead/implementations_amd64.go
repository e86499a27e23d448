package aead

// implementations lists all there are for this architecture, the fastest first.
var implementations = []*Implementation{avx512, avx2, xcrypto, portable}
