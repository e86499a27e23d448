//go:build race

package udp

// poolAllocs is what a Send may allocate: the race detector makes sync.Pool forget now and then.
const poolAllocs = 3
