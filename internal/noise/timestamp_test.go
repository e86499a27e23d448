package noise

import (
	"encoding/hex"
	"testing"
	"time"
)

func TestTAI64N(t *testing.T) {
	for _, tt := range []struct {
		at   time.Time
		want string
	}{
		{time.Unix(0, 0), "400000000000000a00000000"},
		{time.Unix(1_700_000_000, 0), "400000006553f10a00000000"},
		{time.Unix(1_700_000_000, 1<<24-1), "400000006553f10a00000000"},
		{time.Unix(1_700_000_000, 1<<24), "400000006553f10a01000000"},
		{time.Unix(1_700_000_000, 999_999_999), "400000006553f10a3b000000"},
		{time.Unix(-1, 0), "400000000000000900000000"},
	} {
		if got := TAI64N(tt.at); hex.EncodeToString(got[:]) != tt.want {
			t.Errorf("TAI64N(%v) = %x, want %s", tt.at, got, tt.want)
		}
	}
	base := time.Unix(1_700_000_000, 0)
	for _, tt := range []struct {
		t, u time.Time
		want bool
	}{
		{base, base, false},
		{base.Add(16 * time.Millisecond), base, false}, // whitened away
		{base.Add(17 * time.Millisecond), base, true},
		{base.Add(time.Second), base.Add(999 * time.Millisecond), true},
		{base.Add(999 * time.Millisecond), base.Add(time.Second), false},
		{base.Add(256 * time.Second), base.Add(255 * time.Second), true}, // big endian
	} {
		if got := TAI64N(tt.t).After(TAI64N(tt.u)); got != tt.want {
			t.Errorf("TAI64N(%v).After(TAI64N(%v)) = %t", tt.t, tt.u, got)
		}
	}
	if !TAI64N(time.Unix(0, 0)).After(Timestamp{}) {
		t.Error("the epoch isn't after the zero Timestamp")
	}
}
