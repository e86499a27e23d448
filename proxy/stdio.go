package proxy

import (
	"errors"
	"io"
	"time"
)

// serveSTDIO connects the standard input and output to the target until the target's side ends.
func (s *section) serveSTDIO(l *live) error {
	in, out := s.stdin, s.stdout
	s.open.Add(1)
	s.total.Add(1)
	defer s.open.Add(-1)
	target, err := s.dial(l.ctx, l, "tcp", s.Target)
	if err != nil {
		s.failed.Add(1)
		return s.errorf("Target %q: %w", s.Target, err)
	}
	defer l.drop(target)
	// Not waited for: a read of a terminal can't be ended.
	go func() {
		n, err := io.Copy(target, in)
		s.toTarget.Add(uint64(n))
		if c, ok := target.(interface{ CloseWrite() error }); ok && err == nil {
			c.CloseWrite()
		}
	}()
	// Nor is this for longer than a moment when Run ends: nor can a write be ended that nobody reads.
	copied := make(chan error, 1)
	go func() {
		n, err := io.Copy(out, target)
		s.toClient.Add(uint64(n))
		copied <- err
	}()
	select {
	case err = <-copied:
	case <-l.ctx.Done():
		select {
		case err = <-copied:
		case <-time.After(time.Second):
			out = nil // which is written to
		}
	}
	for _, end := range []any{in, out} {
		if c, ok := end.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	if l.ctx.Err() != nil {
		return nil
	}
	return err
}
