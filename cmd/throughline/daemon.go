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

// A daemon is one interface, its configuration socket, and how it is to be run.
type daemon struct {
	*environment
	name string // of the interface; the kernel may complete it (wg%d)
}

// run runs the daemon until a signal comes or its interface or socket is gone, and leaves nothing behind. It calls
// ready when the interface and the socket are there.
func (d *daemon) run(ready func()) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), endSignals...)
	defer stop()
	log := d.logger(slog.LevelError)
	hideMemory()
	ignoreBrokenPipes() // when the reader of the log goes away

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
