//go:build !linux

package tun

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

// What isn't there is said, in the way that every other refusal of its kind is.
func TestUnsupported(t *testing.T) {
	_, errOpen := Open("wg0", Options{})
	_, errFD := FromFD(3, Options{})
	for _, err := range []error{errOpen, errFD} {
		if !errors.Is(err, errors.ErrUnsupported) || !strings.HasPrefix(err.Error(), "tun: ") || !strings.Contains(err.Error(), runtime.GOOS) {
			t.Errorf("error %v", err)
		}
	}
}
