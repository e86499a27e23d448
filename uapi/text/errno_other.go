//go:build !unix

package text

import "syscall"

// Windows has no errno of its own: the numbers are those of Microsoft's errno.h, by which wg.exe is built.
var numbers = map[syscall.Errno]int{
	syscall.EPERM: 1, syscall.EIO: 5, syscall.E2BIG: 7, syscall.ENOMEM: 12, syscall.EACCES: 13, syscall.EINVAL: 22,
	syscall.EADDRINUSE: 100, syscall.EPROTO: 134,
}

// number returns the number that errno.h gives e, or EINVAL's if it gives none.
func number(e syscall.Errno) int {
	if n, ok := numbers[e]; ok {
		return n
	}
	return numbers[syscall.EINVAL]
}

// fromNumber returns the error whose number in errno.h is n, or EINVAL if there is none.
func fromNumber(n int) syscall.Errno {
	for e, m := range numbers {
		if m == n {
			return e
		}
	}
	return syscall.EINVAL
}
