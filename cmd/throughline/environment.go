package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"throughline"
	"throughline/packet"
	"throughline/udp"
)

// The environment variables that operators set. Those that begin with WG_, and LOG_LEVEL, are wireguard-go's.
const (
	logLevel       = "LOG_LEVEL"
	inForeground   = "WG_PROCESS_FOREGROUND"
	tunFD          = "WG_TUN_FD"
	uapiFD         = "WG_UAPI_FD"
	offloadsOff    = "THROUGHLINE_OFFLOADS_OFF"
	implementation = "THROUGHLINE_CIPHER_IMPLEMENTATION"
	formerName     = "THROUGHLINE_CIPHER" // the former name of implementation, which is still read
)

// The environment variables that the program sets for a copy of itself.
const (
	readyFD = "THROUGHLINE_READY_FD"      // the daemon in the background: the pipe on which it reports that it is ready
	ownRoot = "THROUGHLINE_DEMO_OWN_ROOT" // the demo: it is in a user namespace of its own already
)

// environmentUsage is the variables' part of --help.
const environmentUsage = `Environment:
  LOG_LEVEL=verbose|error|silent   what is logged on stderr (default: error; proxy and demo log
                                   warnings too); debug is the same as verbose
  WG_PROCESS_FOREGROUND=1          the same as -f
  WG_TUN_FD=N                      an open TUN descriptor to use instead of making INTERFACE
  WG_UAPI_FD=N                     a listening configuration socket to use instead of making one
  THROUGHLINE_OFFLOADS_OFF=LIST    offloads not to use: tso, uso, tcp-gro, udp-gro (of the interface), gso,
                                   gro (of the sockets), or all; LOG_LEVEL=verbose logs which are in use
  THROUGHLINE_CIPHER_IMPLEMENTATION=NAME
                                   the code that encrypts and decrypts packets (default: the fastest that
                                   this machine can run); a wrong name lists those that it can
`

// An environment is the variables' values, checked. It is read once and doesn't change.
type environment struct {
	level           slog.Level // messages below this level aren't logged
	levelSet        bool       // LOG_LEVEL is set
	logInBackground bool       // LOG_LEVEL asks for the daemon's log in the background, too
	foreground      bool
	tunFD, uapiFD   int      // -1: not set
	host            udp.Host // its Off is used for the TUN too
	cipher          string   // the implementation; "": the fastest
	notices         []string // what an operator should change, a line each
}

// silent is above every level.
const silent = slog.LevelError + 100

// readEnvironment reads and checks the variables.
func readEnvironment() (*environment, error) {
	e := &environment{level: slog.LevelError, foreground: os.Getenv(inForeground) == "1"}
	var err error
	if e.tunFD, err = descriptor(tunFD); err != nil {
		return nil, err
	}
	if e.uapiFD, err = descriptor(uapiFD); err != nil {
		return nil, err
	}
	if e.host.Off, err = packet.ParseOffloads(os.Getenv(offloadsOff)); err != nil {
		return nil, fmt.Errorf("%s: %w", offloadsOff, err)
	}
	if err := e.chooseCipher(); err != nil {
		return nil, err
	}
	level := os.Getenv(logLevel)
	e.levelSet = level != ""
	switch level {
	case "":
	case "verbose", "debug":
		e.level, e.logInBackground = slog.LevelDebug, true
	case "silent":
		e.level = silent
	default: // "error"; and, as with wireguard-go, any other value: containers set LOG_LEVEL for other programs too
		e.logInBackground = true
	}
	return e, nil
}

// chooseCipher reads which implementation of the cipher to use.
func (e *environment) chooseCipher() error {
	variable, name := implementation, os.Getenv(implementation)
	if former := os.Getenv(formerName); former != "" {
		e.notices = append(e.notices, fmt.Sprintf("%s is the former name of %s: use that one", formerName, implementation))
		if name == "" {
			variable, name = formerName, former
		}
	}
	if have := throughline.CipherImplementations(); name != "" && !slices.Contains(have, name) {
		return fmt.Errorf("%s is %q, which this machine doesn't have: use %s", variable, name, strings.Join(have, ", "))
	}
	e.cipher = name
	return nil
}

// printNotices prints the notices, unless nothing is to be logged, or this is a copy of a program that has printed them.
func (e *environment) printNotices(w io.Writer) {
	if e.level == silent || os.Getenv(readyFD) != "" || os.Getenv(ownRoot) != "" {
		return
	}
	for _, notice := range e.notices {
		fmt.Fprintf(w, "throughline: %s\n", notice)
	}
}

// logger returns a logger to stderr. Its level is LOG_LEVEL's, or unset if that variable isn't set.
func (e *environment) logger(unset slog.Level) *slog.Logger {
	level := e.level
	if !e.levelSet {
		level = unset
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// descriptor reads the number of an open descriptor from a variable.
func descriptor(variable string) (int, error) {
	s := os.Getenv(variable)
	if s == "" {
		return -1, nil
	}
	fd, err := strconv.ParseUint(s, 10, 16)
	if err != nil || !isOpen(int(fd)) {
		return -1, fmt.Errorf("%s is %q, which is not the number of an open descriptor", variable, s)
	}
	return int(fd), nil
}
