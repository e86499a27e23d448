// Package wgtypes is the types of a WireGuard device's interface: its keys, a [Config] that changes it, a [Status] of
// what it is and did, an [Event]. Package throughline has these types under the same names; a program that reads
// configuration files, or configures another program's device, needs no more than this package, and compiles no device
// with it.
//
// Concurrency: these are values. They have no locks; one that is shared must not be written.
//
// Limits: none of its own. A device takes at most 1,048,576 peers.
package wgtypes
