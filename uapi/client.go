package uapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"

	"throughline"
)

// A Client asks a running tunnel, this project's or another's. It is for one goroutine at a time.
type Client struct {
	conn   patient
	r      *bufio.Reader
	broken error // why no more requests can be made on the connection
}

// NewClient returns a client that talks on conn and owns it.
func NewClient(conn net.Conn) *Client {
	c := patient{conn}
	return &Client{conn: c, r: bufio.NewReaderSize(c, readSize)}
}

// Close closes the connection. A call that waits on it returns an error.
func (c *Client) Close() error { return c.conn.Close() }

// Get asks for the device's status. The answer of a tunnel that refuses is an error that wraps a [syscall.Errno].
func (c *Client) Get() (throughline.Status, error) {
	if c.broken != nil {
		return throughline.Status{}, c.broken
	}
	if _, err := io.WriteString(c.conn, "get=1\n\n"); err != nil {
		return throughline.Status{}, c.fail(err)
	}
	st, err := ReadStatus(c.r)
	if err != nil {
		c.fail(err) // whatever it is, the answer may not have been read to its end
	}
	return st, err
}

// Set asks for a change. That the tunnel refuses it is an error that wraps a [syscall.Errno], as does
// EADDRINUSE for a listen port in use; the client can go on asking then. A change that the protocol can't carry is an
// error before anything is sent.
func (c *Client) Set(cfg throughline.Config) error {
	if c.broken != nil {
		return c.broken
	}
	if err := check(&cfg); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, "set=1\n"); err != nil {
		return c.fail(err)
	}
	if err := WriteConfig(c.conn, &cfg); err != nil {
		return c.fail(err)
	}
	return c.readErrno()
}

// readErrno reads the answer to a set request: an errno and an empty line.
func (c *Client) readErrno() error {
	l := lines{r: c.r}
	line, err := l.next()
	if err != nil {
		return c.fail(err)
	}
	key, value, ok := cut(line)
	n, isErrno := parseErrno(value)
	if !ok || string(key) != "errno" || !isErrno {
		return c.fail(errAnswer)
	}
	if line, err = l.next(); err != nil {
		return c.fail(err)
	}
	if len(line) > 0 {
		return c.fail(errAnswer)
	}
	if n != 0 {
		return fmt.Errorf("uapi: set: %w", n)
	}
	return nil
}

var errAnswer = errors.New("the answer to set=1 is not an errno and an empty line")

// fail makes the client useless, because the connection is.
func (c *Client) fail(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	c.broken = fmt.Errorf("uapi: connection: %w", err)
	return c.broken
}
