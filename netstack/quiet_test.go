package netstack

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/log"
)

// gVisor logs nothing, unless the program has set its logger up.
func TestGVisorIsSilent(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Fatal("a stack without addresses")
	}
	if _, ok := log.Log().Emitter.(discard); !ok {
		t.Errorf("gVisor logs to %T", log.Log().Emitter)
	}
	defer log.SetTarget(log.Log().Emitter)
	var text bytes.Buffer
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: &text}})
	silence()
	log.Warningf("a warning")
	if !bytes.Contains(text.Bytes(), []byte("a warning")) {
		t.Errorf("the program's own logger has %q", &text)
	}
}
