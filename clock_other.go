//go:build !linux

package throughline

import (
	"time"

	"throughline/internal/mono"
)

var started = time.Now()

// boottime is the tunnel's clock. On this operating system it is the time package's, which may stand still while the
// machine sleeps: a session that expired meanwhile is noticed later.
func boottime() mono.Time { return mono.Time(time.Since(started) + time.Second) }
