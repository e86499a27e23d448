package uapi

import (
	"bufio"
	"fmt"
	"io"
	"net"

	"throughline/uapi/text"
	"throughline/wgtypes"
)

// A Client reads and changes a running tunnel, this project's or another's. It is for one goroutine at a time.
type Client struct {
	conn   timeoutConn
	r      *bufio.Reader
	broken error // why no more requests can be made on the connection
}

// NewClient returns a client on conn, which it owns.
func NewClient(conn net.Conn) *Client {
	c := timeoutConn{conn}
	return &Client{conn: c, r: bufio.NewReaderSize(c, readSize)}
}

// Close closes the connection. A call that waits on it returns an error.
func (c *Client) Close() error { return c.conn.Close() }

// Get asks for the device's status. The answer of a tunnel that refuses is an error that wraps a [syscall.Errno].
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
		c.fail(err) // whatever it is, the answer may not have been read to its end
	}
	return st, err
}

// Set asks for a change. That the tunnel refuses it is an error that wraps a [syscall.Errno], as does
// EADDRINUSE for a listen port in use; the client can go on asking then. A change that the protocol can't carry is an
// error before anything is sent.
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

// fail makes the client useless, because the connection is.
func (c *Client) fail(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	c.broken = fmt.Errorf("uapi: connection: %w", err)
	return c.broken
}
