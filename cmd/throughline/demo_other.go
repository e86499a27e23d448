//go:build !linux

package main

import "context"

// hasNamespaces says whether this system has network namespaces. It hasn't, so the functions below aren't called.
const hasNamespaces = false

func mayUseNamespaces() bool { return false }

func enterCommand(string) string { panic("demo: BUG: no namespaces here") }

func inUserNamespace(context.Context, []string) error { panic("demo: BUG: no namespaces here") }
