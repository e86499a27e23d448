package linux

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Running returns the version of the running kernel; the zero Version when it doesn't say.
var Running = sync.OnceValue(func() Version {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return Version{}
	}
	return Parse(unix.ByteSliceToString(u.Release[:]))
})
