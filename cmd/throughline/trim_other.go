//go:build !linux

package main

// giveBackStartup does nothing on this operating system.
func giveBackStartup() {}
