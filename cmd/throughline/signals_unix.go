//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// endSignals end the program in good order.
var endSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM}

// ignoreBrokenPipes keeps the program alive when the reader of its stdout or stderr goes away: the runtime would end it.
func ignoreBrokenPipes() { signal.Ignore(syscall.SIGPIPE) }
