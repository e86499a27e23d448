package secret

import "sync/atomic"

// Users counts the uses under way of a secret that goroutines share, so that it is erased when it was retired and nobody
// uses it, and never under a user's hands:
//
//   - a use begins with Begin, which refuses once the secret was retired, and ends with End;
//   - Retire is called when the secret is not to be used any more;
//   - exactly one call, of Retire or of the last End after it, returns true: its caller erases.
//
// No call waits. A Users starts without uses, and must not be copied.
type Users struct {
	n atomic.Int64 // the uses under way, and retired
}

const retired = 1 << 32 // a bit that no number of uses reaches

// Begin begins a use. It reports false, and begins none, when the secret was retired.
func (u *Users) Begin() bool {
	for {
		n := u.n.Load()
		if n >= retired {
			return false
		}
		if u.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// End ends a use, and reports whether the caller is to erase the secret.
func (u *Users) End() (erase bool) { return u.n.Add(-1) == retired }

// Retire ends what may begin, and reports whether the caller is to erase the secret. It may be called more than once.
func (u *Users) Retire() (erase bool) { return u.n.Or(retired) == 0 }
