//go:build !linux

package tun

import (
	"fmt"
	"runtime"
)

// Open returns an error that is [ErrUnsupported].
func Open(name string, opts Options) (Device, error) {
	return nil, fmt.Errorf("%w: %s", ErrUnsupported, runtime.GOOS)
}

// FromFD returns an error that is [ErrUnsupported]. The descriptor stays the caller's.
func FromFD(fd int, opts Options) (Device, error) {
	return nil, fmt.Errorf("%w: %s", ErrUnsupported, runtime.GOOS)
}
