package netstack

import (
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

var silencing sync.Once

// silence makes gVisor's logger, one for the whole process, discard what it is given: a library writes to no stderr, and
// a stranger's packet can cause a line. A logger that the program has set up itself is left alone, as is one at debug level.
func silence() {
	l := log.Log()
	if e, ok := l.Emitter.(log.GoogleEmitter); ok && e.Writer != nil && e.Writer.Next == os.Stderr && !l.IsLogging(log.Debug) {
		log.SetTarget(discard{})
	}
}

// discard is an emitter that emits nothing.
type discard struct{}

// Emit implements [log.Emitter].
func (discard) Emit(int, log.Level, time.Time, string, ...any) {}
