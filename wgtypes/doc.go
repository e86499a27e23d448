// Package wgtypes is what a WireGuard device is told and what it tells: its keys, a [Config] that changes it, a [Status]
// of what it is and did. Package throughline has these types under the same names; a program that reads configuration
// files, or speaks to another program's device, needs no more than this package, and compiles no device with it.
//
// Concurrency: these are values. They have no locks; one that is shared must not be written.
//
// Limits: none of its own. A device takes at most 1,048,576 peers.
package wgtypes
