//go:build !linux && !darwin

package udp

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

func TestUnsupportedInterface(t *testing.T) {
	c, err := (&Host{Interface: "eth0"}).Listen(0)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "eth0: not implemented for "+runtime.GOOS) {
		t.Errorf("error %v", err)
	}
}
