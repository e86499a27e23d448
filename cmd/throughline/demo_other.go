//go:build !linux

package main

import "context"

// hasNamespaces means that this system has no network namespaces; so the functions below aren't called.
const hasNamespaces = false

func mayUseNamespaces() bool { return false }

func enter(string) string { panic("demo: BUG: no namespaces here") }

func inUserNamespace(context.Context, []string) error { panic("demo: BUG: no namespaces here") }
