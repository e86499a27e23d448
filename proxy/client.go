package proxy

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/datagram"
	"throughline/proxy/internal/places"
	"throughline/proxy/internal/relay"
)

const (
	maxHandshakes       = 512 // clients of a proxy that haven't asked for anything yet
	maxHandshakesForOne = 256 // of one source
)

var (
	errFull  = errors.New("all connections are taken")
	errGiven = errors.New("gave way to other clients before it asked for anything")
)

// A client is a connection to a section. That of a proxy has a place among those that have a login and a request still to
// send; from then on, as all others from the start, one among the connections that are served.
type client struct {
	net.Conn
	s      *section
	place  places.Place
	served bool
}

// admit lets a connection in, or closes it and returns nil.
func (s *section) admit(l *live, c net.Conn) *client {
	v := &client{Conn: c, s: s}
	switch {
	case !l.add(c):
		return nil
	case s.Kind != Socks5 && s.Kind != HTTP:
		if v.served = s.enter(); !v.served {
			s.refuse(l, c)
			return nil
		}
		return v
	case s.open.Load() >= int64(s.MaxConnections):
		s.full()
		s.refuse(l, c)
		return nil
	}
	v.place.Yield = func() { relay.Abort(c) }
	// Those that gave way take a moment to end, which a flood mustn't outrun.
	ok, displaced := s.greeting.Add(1) <= 2*maxHandshakes, false
	if ok {
		ok, displaced = s.places.Take(&v.place, datagram.AddrPort(c.RemoteAddr()).Addr())
	}
	if !ok || displaced {
		s.displaced.Add(1)
		if s.warned.displaced.may() {
			s.log.Warn("proxy: clients that ask for nothing take all places: closing the oldest")
		}
	}
	if !ok {
		s.greeting.Add(-1)
		relay.Abort(c)
		l.drop(c)
		return nil
	}
	return v
}

// serve moves a client among those that are served, when it has logged in and asked for something.
func (v *client) serve() error {
	switch {
	case v.served:
		return nil
	case !v.s.enter():
		return errFull
	case !v.s.places.Leave(&v.place):
		v.s.open.Add(-1)
		return errGiven
	}
	v.s.greeting.Add(-1)
	v.served = true
	return nil
}

// leave gives up the client's place, whichever it is.
func (v *client) leave() {
	if v.served {
		v.s.open.Add(-1)
		return
	}
	v.s.places.Leave(&v.place)
	v.s.greeting.Add(-1)
}

// enter takes a place among the connections of the section, if one is free.
func (s *section) enter() bool {
	if s.open.Add(1) <= int64(s.MaxConnections) {
		s.total.Add(1)
		return true
	}
	s.open.Add(-1)
	s.full()
	return false
}

// full counts a client that was refused.
func (s *section) full() {
	s.refused.Add(1)
	if s.warned.full.may() {
		s.log.Warn("proxy: refusing clients: MaxConnections is reached", "MaxConnections", s.MaxConnections)
	}
}

// A pace lets through a line of the log every 10 s, where strangers could have as many as they like.
type pace struct{ last atomic.Int64 } // in Unix seconds

func (p *pace) may() bool {
	now, last := time.Now().Unix(), p.last.Load()
	return now-last >= 10 && p.last.CompareAndSwap(last, now)
}
