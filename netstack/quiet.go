package netstack

import (
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

// silencing calls silence once.
var silencing sync.Once

// silence makes gVisor's logger, which is one for the whole process, discard its lines: a library must not write to stderr,
// and a received packet can cause a line. A logger that the program has set up itself is left alone, as is one at debug
// level.
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
