//go:build !linux

package udp

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

// A mark is refused with an error that says what is missing, and none is nothing to refuse.
func TestUnsupportedMark(t *testing.T) {
	c := newConn(t, &Host{})
	if err := c.SetMark(0); err != nil {
		t.Errorf("no mark: %v", err)
	}
	if err := c.SetMark(7); !errors.Is(err, errors.ErrUnsupported) || !strings.HasPrefix(err.Error(), "udp: set mark 0x7: ") || !strings.Contains(err.Error(), runtime.GOOS) {
		t.Errorf("error %v", err)
	}
}
