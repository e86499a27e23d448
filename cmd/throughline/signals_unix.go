//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// endSignals are the signals at which the program cleans up and ends.
var endSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM}

// ignoreBrokenPipes makes writes to stdout and stderr fail when their reader has gone, where Go's runtime would end the
// program.
func ignoreBrokenPipes() { signal.Ignore(syscall.SIGPIPE) }
