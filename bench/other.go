//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
	"os/exec"
)

// errLinux is all there is to say elsewhere: network namespaces are Linux's.
var errLinux = errors.New("this needs Linux")

func confine(context.Context, plan, io.Writer, func(event)) error { return errLinux }
func habitable() error                                            { return errLinux }
func send([]string, io.Writer) error                              { return errLinux }
func sink([]string, io.Writer) error                              { return errLinux }
func dieWithUs(*exec.Cmd)                                         {}
