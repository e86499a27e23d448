package main

import (
	"runtime/debug"
	"strings"
)

// version returns the version of this program: see versionOf.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return devel
	}
	return versionOf(info)
}

// devel is the version of a program that isn't a release.
const devel = "devel"

// versionOf returns the version of the module, when the program was built from one (go install ...@v1.2.3) or from an
// unmodified checkout of one. The version of any other checkout is "devel" and the revision, followed by "-modified" when
// there were changes in the tree.
func versionOf(info *debug.BuildInfo) string {
	revision, modified := "", false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	v := info.Main.Version
	// For a checkout without a tag, go uses a pseudo-version, which ends with the revision.
	release := v != "" && v != "(devel)" && (revision == "" || !modified && !strings.HasSuffix(v, revision))
	switch {
	case release:
		return v
	case revision == "":
		return devel
	case modified:
		return devel + "+" + revision + "-modified"
	}
	return devel + "+" + revision
}
