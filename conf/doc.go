// Package conf reads and writes the configuration files of wg(8) and wg-quick(8), and reports for every mistake the
// file, the line, the column and what to write instead.
//
// [Parse] reads a whole file into a [File]: [Interface] and [Peer] typed and checked, any other section as it stands,
// with the position of each entry, for callers that know it. [File.Config] makes the change to a device of it; [Write]
// writes a File back, and [FromStatus] makes one of a running device.
//
// It applies nothing, resolves no name, runs no hook and reads no environment: names of endpoints stay names, hooks stay
// text, and variables are asked of [Parser.Env]. A value that is or may be a secret is never part of an error.
//
// A file is at most 16 MiB, a line at most 64 KiB; at most 20 mistakes are reported. Nothing here is shared: a Parser
// may be used by several goroutines at once as long as nobody changes it, a File belongs to its caller.
//
// Where wg(8) takes the last of several values for a key, merges several [Interface] sections, or lets a peer that is
// named twice lose its first allowed IPs, this package reports a mistake. So it does where wg(8) takes a key or a value
// with spaces in it (Public Key, 10.0.0.0 / 8) or an endpoint's IPv6 address without brackets, and where wg-quick(8)
// takes an MTU below 576.
package conf
