package noise

import (
	"bytes"
	"encoding/binary"
	"time"

	"throughline/internal/wire"
)

// A Timestamp is a moment in TAI64N form: big-endian seconds, then big-endian nanoseconds. Whitepaper §5.1, §5.4.
// Timestamps are ordered as their bytes are.
type Timestamp [wire.TimestampSize]byte

const (
	// tai64Origin is the TAI64 label of the Unix epoch: 2^62, and the 10 seconds TAI was ahead of UTC by convention.
	tai64Origin = 1<<62 + 10

	// whitening is the bits cleared of the nanoseconds: about 16 ms, so that an initiation reveals little of the sender's
	// clock. Kernel: noise.c, tai64n_now, which aligns down to the power of two below 1/INITIATIONS_PER_SECOND.
	whitening = 1<<24 - 1
)

// TAI64N returns the timestamp of t, whitened: moments within the same 16 ms or so have the same timestamp.
func TAI64N(t time.Time) Timestamp {
	var ts Timestamp
	binary.BigEndian.PutUint64(ts[:], tai64Origin+uint64(t.Unix()))
	binary.BigEndian.PutUint32(ts[8:], uint32(t.Nanosecond())&^whitening)
	return ts
}

// Next returns the earliest timestamp later than t that [TAI64N] makes, if it made t.
func (t Timestamp) Next() Timestamp {
	seconds, nanos := binary.BigEndian.Uint64(t[:]), binary.BigEndian.Uint32(t[8:])+whitening+1
	if nanos >= 1e9 {
		seconds, nanos = seconds+1, 0
	}
	binary.BigEndian.PutUint64(t[:], seconds)
	binary.BigEndian.PutUint32(t[8:], nanos)
	return t
}

// After reports whether t is later than u. The zero Timestamp is earlier than any that [TAI64N] makes.
func (t Timestamp) After(u Timestamp) bool { return bytes.Compare(t[:], u[:]) > 0 }
