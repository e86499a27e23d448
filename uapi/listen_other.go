//go:build !unix

package uapi

import (
	"net"
	"os"
)

// A Listener is the socket by which wg(8) finds an interface. There is none on this operating system.
type Listener struct{ net.Listener }

// Listen returns [ErrUnsupported].
func Listen(name string) (*Listener, error) { return nil, ErrUnsupported }

// ListenDir returns [ErrUnsupported].
func ListenDir(dir, name string) (*Listener, error) { return nil, ErrUnsupported }

// FromFile returns [ErrUnsupported].
func FromFile(f *os.File, name string) (*Listener, error) { return nil, ErrUnsupported }

// FromFileDir returns [ErrUnsupported].
func FromFileDir(f *os.File, dir, name string) (*Listener, error) { return nil, ErrUnsupported }

// Path returns the empty string.
func (l *Listener) Path() string { return "" }

// Removed returns nil: no socket can be removed.
func (l *Listener) Removed() <-chan struct{} { return nil }

// Detach returns [ErrUnsupported].
func (l *Listener) Detach() error { return ErrUnsupported }

// Dial returns [ErrUnsupported].
func Dial(name string) (*Client, error) { return nil, ErrUnsupported }

// DialDir returns [ErrUnsupported].
func DialDir(dir, name string) (*Client, error) { return nil, ErrUnsupported }
