package netstack

// WaitRead waits until a Read would return: a datagram or an error is there, or the deadline for reading has passed. A reader that
// may wait for long needs no buffer meanwhile.
func (c *udpConn) WaitRead() error {
	for {
		if err := c.check(&c.rd); err != nil {
			return c.fail("read", err)
		}
		if c.ep.Readiness(readable) != 0 {
			return nil
		}
		if err := c.wait(c.in, &c.rd); err != nil {
			return c.fail("read", err)
		}
	}
}
