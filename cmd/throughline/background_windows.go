package main

// background runs the daemon in the foreground: Windows has services for what runs behind.
func (d *daemon) background() error { return d.run(func() {}) }

// isOpen can't tell on this operating system.
func isOpen(int) bool { return true }
