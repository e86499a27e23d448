package main

import "os"

// endSignals are the signals at which the program cleans up and ends.
var endSignals = []os.Signal{os.Interrupt}

// ignoreBrokenPipes does nothing: there is no such signal.
func ignoreBrokenPipes() {}
