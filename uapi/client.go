package uapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"time"

	"throughline/uapi/text"
	"throughline/wgtypes"
)

// A Client reads and changes a running tunnel, of this implementation or another. It is for one goroutine at a time, but for
// Close.
type Client struct {
	conn   timeoutConn
	r      *bufio.Reader
	broken error // why no more requests can be made on the connection
}

// NewClient returns a client that uses conn, and owns it: [Client.Close] closes it.
func NewClient(conn net.Conn) *Client {
	c := timeoutConn{conn}
	return &Client{conn: c, r: bufio.NewReaderSize(c, readSize)}
}

// Close closes the connection. It may be called from any goroutine; a call that is waiting for an answer returns an error.
func (c *Client) Close() error { return c.conn.Close() }

// Get returns the device's status, secret keys included. If the tunnel refuses, the error wraps a [syscall.Errno]. After any
// error of Get the client can't be used again.
func (c *Client) Get() (wgtypes.Status, error) {
	if c.broken != nil {
		return wgtypes.Status{}, c.broken
	}
	if _, err := io.WriteString(c.conn, text.Get+"\n\n"); err != nil {
		return wgtypes.Status{}, c.fail(err)
	}
	st, err := text.ReadStatus(c.r)
	text.WipeBuffer(c.r, c.conn)
	if err != nil {
		c.fail(err) // whatever err is, the answer may not have been read to its end
	}
	return st, err
}

// Set changes the device. If the tunnel refuses, the error wraps a [syscall.Errno], such as EADDRINUSE for a listen port in
// use; the client can be used again. So it can after the error of a change that the protocol can't carry, of which nothing
// is sent. Any other error is the connection's, and then the client can't be used again. Set keeps nothing that cfg points
// to.
func (c *Client) Set(cfg wgtypes.Config) error {
	if c.broken != nil {
		return c.broken
	}
	if err := text.Check(&cfg); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, text.Set+"\n"); err != nil {
		return c.fail(err)
	}
	if err := text.WriteConfig(c.conn, &cfg); err != nil {
		return c.fail(err)
	}
	answer, err := text.ReadErrno(c.r)
	if err != nil {
		return c.fail(err)
	}
	if answer != nil {
		return fmt.Errorf("uapi: set: %w", answer)
	}
	return nil
}

// fail records that the connection failed, which every later call reports.
func (c *Client) fail(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	c.broken = fmt.Errorf("uapi: connection: %w", err)
	return c.broken
}

// A timeoutConn bounds each read and write by ioTimeout.
type timeoutConn struct{ net.Conn }

func (c timeoutConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c timeoutConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
