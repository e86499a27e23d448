package aead

// ways are all there are, the best first.
var ways = []*Way{avx512, avx2, xcrypto, portable}
