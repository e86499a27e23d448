package udp

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A version is a kernel's version: major, minor, patch. What a distribution mended on its own is not in it.
type version [3]int

var kernelRelease = sync.OnceValue(func() version {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return version{}
	}
	return parseVersion(unix.ByteSliceToString(u.Release[:]))
})

// parseVersion reads the numbers at the beginning of a release such as "6.8.0-45-generic"; missing ones are 0.
func parseVersion(s string) (v version) {
	i := 0
	for j := 0; j < len(s); j++ {
		switch c := s[j]; {
		case '0' <= c && c <= '9' && v[i] < 1<<20:
			v[i] = v[i]*10 + int(c-'0')
		case c == '.' && i < 2:
			i++
		default:
			return v
		}
	}
	return v
}

func (v version) less(w version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] < w[i]
		}
	}
	return false
}

// hasSoundGRO reports whether UDP_GRO works; it came with 5.0, but loses and mixes up datagrams before 5.12.
func (v version) hasSoundGRO() bool { return !v.less(version{5, 12, 0}) }

// corruptsEqualTrains reports whether trains whose segments are all equal may leave with a wrong UDP length and
// checksum: from commit b10b446 (7.0) until 78effd8 and 5f17ae0 (7.1.5). It can't be seen at run time.
func (v version) corruptsEqualTrains() bool {
	return !v.less(version{7, 0, 0}) && v.less(version{7, 1, 5})
}
