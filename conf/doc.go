// Package conf reads and writes the configuration files of wg(8) and wg-quick(8), and reports for every mistake the
// file, the line, the column and what to write instead.
//
// [Parse] reads a whole file into a [File]: the sections [Interface] and [Peer] are checked and have types; any other section
// is kept as text, with the position of each entry, for callers that understand it. [File.Config] returns the change that
// makes a device what the file says; [Write] writes a File back, and [FromStatus] returns the File of a running device.
//
// The package applies nothing, resolves no name, runs no hook and reads no environment: names of endpoints stay names,
// hooks stay text, and the values of variables come from [Parser.Env] alone. A value that is or may be a secret is never
// part of an error.
//
// A file is at most 16 MiB, a line at most 64 KiB; at most 20 mistakes are reported. Nothing here is shared: a Parser
// may be used by several goroutines at once as long as nobody changes it, a File belongs to its caller.
//
// Where wg(8) takes the last of several values for a key, merges several [Interface] sections, or lets a peer that is
// named twice lose its first allowed IPs, this package reports a mistake. It also reports one where wg(8) accepts a key
// or a value with spaces in it (Public Key, 10.0.0.0 / 8) or an endpoint's IPv6 address without brackets, and where
// wg-quick(8) accepts an MTU below 576.
package conf
