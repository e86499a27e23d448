package main

import "os"

var endSignals = []os.Signal{os.Interrupt}

// ignoreBrokenPipes does nothing: there is no such signal.
func ignoreBrokenPipes() {}
