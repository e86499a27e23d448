//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
	"os/exec"
)

// errLinux is the error of everything that needs Linux's network namespaces.
var errLinux = errors.New("this benchmark needs Linux")

func confine(context.Context, plan, io.Writer, func(event)) error { return errLinux }
func mountPrivateRun() error                                      { return errLinux }
func send([]string, io.Writer) error                              { return errLinux }
func sink([]string, io.Writer) error                              { return errLinux }
func killWithParent(*exec.Cmd)                                    {}
