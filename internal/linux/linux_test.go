package linux

import "testing"

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		release    string
		want       Version
		gro, equal bool
	}{
		{"", Version{}, false, false},
		{"nonsense", Version{}, false, false},
		{"4.19.0", Version{4, 19, 0}, false, false},
		{"5.11.22-generic", Version{5, 11, 22}, false, false},
		{"5.12.0", Version{5, 12, 0}, true, false},
		{"5.12-rc1", Version{5, 12, 0}, true, false},
		{"6.8.0-45-generic", Version{6, 8, 0}, true, false},
		{"6.99.255", Version{6, 99, 255}, true, false},
		{"7.0.0-14-generic", Version{7, 0, 0}, true, true},
		{"7.0.12.3", Version{7, 0, 12}, true, true},
		{"7.1.4", Version{7, 1, 4}, true, true},
		{"7.1.5", Version{7, 1, 5}, true, false},
		{"7.2.0", Version{7, 2, 0}, true, false},
		{"10.0+", Version{10, 0, 0}, true, false},
		{"99999999999999999999", Version{9999999, 0, 0}, true, false},
	} {
		v := Parse(c.release)
		if v != c.want || v.HasSoundGRO() != c.gro || v.CorruptsEqualSegments() != c.equal {
			t.Errorf("%q: %v, GRO %t, corrupts %t", c.release, v, v.HasSoundGRO(), v.CorruptsEqualSegments())
		}
	}
}
