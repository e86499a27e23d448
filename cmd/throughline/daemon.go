package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"throughline"
	"throughline/tun"
	"throughline/uapi"
)

// A daemon is what one call of "throughline INTERFACE" is to run.
type daemon struct {
	*environment
	name string // of the interface; in wg%d the kernel replaces %d by a number
}

// run runs the daemon until a signal comes or its interface or socket is gone, and removes both. It calls ready when they
// are there.
func (d *daemon) run(ready func()) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), endSignals...)
	defer stop()
	log := d.logger(slog.LevelError)
	hideMemory()
	ignoreBrokenPipes() // the daemon goes on when nobody reads its log any more

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
	log.Debug("started", "version", version())

	select {
	case <-ctx.Done():
		log.Debug("ending: a signal came")
	case <-dev.Ending(): // and not Done: the socket goes first, as the next daemon may make both again at once
		socket.Close()
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

// openTUN makes the interface, or uses the one that the environment names.
func (d *daemon) openTUN() (tun.Device, error) {
	if d.tunFD >= 0 {
		return tun.FromFD(d.tunFD, tun.Options{Off: d.host.Off})
	}
	return tun.Open(d.name, tun.Options{Off: d.host.Off})
}

// openSocket makes the configuration socket, or uses the one that the environment names.
func (d *daemon) openSocket(name string) (*uapi.Listener, error) {
	if d.uapiFD >= 0 {
		return uapi.FromFile(os.NewFile(uintptr(d.uapiFD), uapiFD), name)
	}
	return uapi.Listen(name)
}
