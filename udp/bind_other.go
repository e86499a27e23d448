//go:build !linux && !darwin

package udp

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

// bindToInterface refuses: nothing that binds a socket to an interface, for sending and receiving, is implemented here.
func bindToInterface(string, syscall.RawConn, string) error {
	return fmt.Errorf("not implemented for %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
