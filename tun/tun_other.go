//go:build !linux

package tun

import (
	"errors"
	"fmt"
	"runtime"
)

// errUnsupported is what there is instead of a device.
var errUnsupported = fmt.Errorf("no TUN is implemented for %s: %w", runtime.GOOS, errors.ErrUnsupported)

// Open creates a TUN on other operating systems; on this one it returns an error that wraps errors.ErrUnsupported.
func Open(name string, opts Options) (Device, error) {
	return nil, fmt.Errorf("tun: create %s: %w", name, errUnsupported)
}

// FromFD makes a Device of a descriptor on other operating systems; on this one it returns an error that wraps
// errors.ErrUnsupported. The descriptor stays the caller's.
func FromFD(fd int, opts Options) (Device, error) {
	return nil, fmt.Errorf("tun: descriptor %d: %w", fd, errUnsupported)
}
