//go:build !race

package udp

// poolAllocs is what a Send may allocate.
const poolAllocs = 0
