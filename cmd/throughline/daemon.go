package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"

	"throughline"
	"throughline/packet"
	"throughline/tun"
	"throughline/uapi"
	"throughline/udp"
)

// The environment variables of wireguard-go's command, which this one stands in for.
const (
	tunFD  = "WG_TUN_FD"
	uapiFD = "WG_UAPI_FD"
)

// offloadsOff names the environment variable that lists the offloads not to use, cipherName the one that chooses how
// packets are sealed and opened.
const (
	offloadsOff = "THROUGHLINE_OFFLOADS_OFF"
	cipherName  = "THROUGHLINE_CIPHER"
)

// A daemon is what one call of the command is to run.
type daemon struct {
	name          string // of the interface; the kernel may complete it (wg%d)
	tunFD, uapiFD int    // -1: none given
	level         slog.Level
	unsaid        bool     // LOG_LEVEL isn't set
	chatty        bool     // it may speak on stderr from the background, because LOG_LEVEL was set
	host          udp.Host // its Off is the TUN's too
	cipher        string   // "": the best
}

// silent is above every level.
const silent = slog.LevelError + 100

func daemonFromEnvironment(name string) (*daemon, error) {
	d := &daemon{name: name, level: slog.LevelError}
	var err error
	if d.tunFD, err = descriptor(tunFD); err != nil {
		return nil, err
	}
	if d.uapiFD, err = descriptor(uapiFD); err != nil {
		return nil, err
	}
	if d.host.Off, err = packet.ParseOffloads(os.Getenv(offloadsOff)); err != nil {
		return nil, fmt.Errorf("%s: %w", offloadsOff, err)
	}
	if d.cipher = os.Getenv(cipherName); d.cipher != "" && !slices.Contains(throughline.CipherImplementations(), d.cipher) {
		return nil, fmt.Errorf("%s is %q, which isn't among this machine's: use %s", cipherName, d.cipher, strings.Join(throughline.CipherImplementations(), ", "))
	}
	switch os.Getenv("LOG_LEVEL") {
	case "":
		d.unsaid = true
	case "verbose", "debug":
		d.level, d.chatty = slog.LevelDebug, true
	case "silent":
		d.level = silent
	default: // "error", and as with wireguard-go whatever else: containers set LOG_LEVEL for other programs too
		d.chatty = true
	}
	return d, nil
}

// logger returns a logger to stderr. Where LOG_LEVEL isn't set it says what is at least of level unsaid.
func (d *daemon) logger(unsaid slog.Level) *slog.Logger {
	level := d.level
	if d.unsaid {
		level = unsaid
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// descriptor reads the number of an open descriptor from the environment.
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

// run runs the daemon until it is told to end or its interface or socket goes, and leaves nothing behind. It calls
// ready when the interface and the socket are there.
func (d *daemon) run(ready func()) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), endSignals...)
	defer stop()
	log := d.logger(slog.LevelError)
	ignoreBrokenPipes() // of whoever reads what is said

	t, err := d.openTUN()
	if err != nil {
		return err
	}
	name, err := t.Name()
	if err != nil {
		t.Close()
		return fmt.Errorf("the TUN has no name: %w", err)
	}
	socket, err := d.openSocket(name)
	if err != nil {
		t.Close()
		return err
	}
	defer socket.Close()
	log = log.With("interface", name)
	dev, err := throughline.New(throughline.Options{TUN: t, Network: &d.host, Logger: log, CipherImplementation: d.cipher})
	if err != nil {
		t.Close()
		return err
	}
	defer dev.Close()

	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- uapi.Serve(ctx, socket, dev, log) }()
	ready()
	giveBackStartup()
	log.Debug("started", "version", versionString())

	select {
	case <-ctx.Done():
		log.Debug("ending: a signal came")
	case <-dev.Done():
		log.Debug("ending: the interface is gone")
	case <-socket.Removed():
		log.Debug("ending: the socket was removed")
	case err = <-served:
		served <- nil
	}
	cancel()
	socket.Close()
	if e := <-served; err == nil && e != nil && !errors.Is(e, context.Canceled) {
		err = e
	}
	return err
}

func (d *daemon) openTUN() (tun.Device, error) {
	if d.tunFD >= 0 {
		return tun.FromFD(d.tunFD, tun.Options{Off: d.host.Off})
	}
	return tun.Open(d.name, tun.Options{Off: d.host.Off})
}

func (d *daemon) openSocket(name string) (*uapi.Listener, error) {
	if d.uapiFD >= 0 {
		return uapi.FromFile(os.NewFile(uintptr(d.uapiFD), uapiFD), name)
	}
	return uapi.Listen(name)
}
