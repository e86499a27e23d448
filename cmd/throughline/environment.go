package main

import (
	"fmt"
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
	logLevel     = "LOG_LEVEL"
	inForeground = "WG_PROCESS_FOREGROUND"
	tunFD        = "WG_TUN_FD"
	uapiFD       = "WG_UAPI_FD"
	offloadsOff  = "THROUGHLINE_OFFLOADS_OFF"
	cipherName   = "THROUGHLINE_CIPHER"
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
  THROUGHLINE_CIPHER=NAME          the code that encrypts and decrypts packets (default: the fastest that
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
	cipher          string   // "": the fastest
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
	if e.cipher = os.Getenv(cipherName); e.cipher != "" && !slices.Contains(throughline.CipherImplementations(), e.cipher) {
		return nil, fmt.Errorf("%s is %q, which this machine doesn't have: use %s", cipherName, e.cipher, strings.Join(throughline.CipherImplementations(), ", "))
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
