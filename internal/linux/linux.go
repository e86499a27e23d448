// Package linux is the version of the kernel that this process runs on, and the bugs of versions that can't be found out
// by trying. It doesn't know what a distribution fixed on its own.
//
// A [Version] is a value, so any goroutine may use one. Of a release only the first three numbers are read.
package linux

// A Version is a kernel's version: major, minor, patch.
type Version [3]int

// Parse reads the numbers at the beginning of a release such as "6.8.0-45-generic"; missing ones are 0.
func Parse(s string) (v Version) {
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

func (v Version) less(w Version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] < w[i]
		}
	}
	return false
}

// HasSoundGRO reports whether UDP_GRO works; it came with 5.0, but loses and mixes up datagrams before 5.12.
func (v Version) HasSoundGRO() bool { return !v.less(Version{5, 12, 0}) }

// CorruptsEqualSegments reports whether UDP super-packets whose segments are all equal may leave with a wrong UDP length
// and checksum: from commit b10b446 (7.0) until 78effd8 and 5f17ae0 (7.1.5). It can't be seen at run time.
func (v Version) CorruptsEqualSegments() bool {
	return !v.less(Version{7, 0, 0}) && v.less(Version{7, 1, 5})
}
