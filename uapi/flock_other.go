//go:build solaris || illumos || aix

package uapi

import "os"

// flock does nothing: directories can't be locked here.
func flock(*os.File) error { return nil }
