package dns

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A server is how a DNS server answers a question: with what, and after how long, or never.
type server func(kind uint16, tcp bool) (msg string, after time.Duration)

const never = time.Hour

// A servers is a network with servers in it, by their addresses.
type servers struct {
	all   map[string]server
	began time.Time
	mu    sync.Mutex
	asked []string          // "address/kind@ms", with a + for EDNS where a server doesn't know that
	plain map[string]string // how servers that don't know EDNS answer: flags, and whether with the question; empty: not at all
	wg    sync.WaitGroup
}

func (s *servers) dial(_ context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	near, far := net.Pipe()
	s.wg.Go(func() { s.serve(far, to.Addr().String(), network == "tcp") })
	return near, nil
}

func (s *servers) serve(c net.Conn, name string, tcp bool) {
	defer c.Close()
	var answers sync.WaitGroup
	defer answers.Wait()
	ended := make(chan struct{})
	defer close(ended)
	buf := make([]byte, 512)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		q := buf[:n]
		if tcp {
			q = q[2:]
		}
		edns := q[11] == 1
		question := q[12:]
		if edns {
			question = question[:len(question)-11]
		}
		id, kind := binary.BigEndian.Uint16(q), binary.BigEndian.Uint16(question[len(question)-4:])
		what := name + "/A@"
		if kind == AAAA {
			what = name + "/AAAA@"
		}
		s.mu.Lock()
		refusal, plain := s.plain[name]
		if plain && edns {
			what = strings.Replace(what, "@", "+@", 1)
		}
		s.asked = append(s.asked, what+time.Since(s.began).String())
		msg, after := s.all[name](kind, tcp)
		switch {
		case plain && edns && refusal == "":
			after = never
		case plain && edns && len(refusal) == 2:
			msg, after = "\x00\x07"+refusal+"\x00\x00\x00\x00\x00\x00\x00\x00", 0
		case plain && edns:
			msg, after = "\x00\x07"+refusal[:2]+"\x00\x01\x00\x00\x00\x00\x00\x00"+string(question), 0
		}
		s.mu.Unlock()
		answers.Go(func() {
			select {
			case <-time.After(after):
			case <-ended:
				return
			}
			m := binary.BigEndian.AppendUint16(nil, id)
			m = append(m, msg[2:]...)
			if tcp {
				m = append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
			}
			c.Write(m)
		})
	}
}

// about returns an answer of a kind, with one address or none.
func about(kind uint16, records int) string {
	const header = 12
	m := reply(ok, "\x00"+string(rune(records)), "")
	binary.BigEndian.PutUint16(m[header+11:], kind)
	switch {
	case records == 0:
	case kind == A:
		m = append(m, addr...)
	default:
		m = append(m, "\xc0\x0c"+six[3:]...)
	}
	return string(m)
}

func TestLookup(t *testing.T) {
	const ms = time.Millisecond
	// answers makes a server that answers about each kind after its time, with an address.
	answers := func(v6, v4 time.Duration) server {
		return func(kind uint16, _ bool) (string, time.Duration) {
			if kind == AAAA {
				return about(AAAA, 1), v6
			}
			return about(A, 1), v4
		}
	}
	silent := answers(never, never)
	// lossy makes a server that doesn't get the first n questions.
	lossy := func(n int) server {
		return func(kind uint16, tcp bool) (string, time.Duration) {
			if n--; n >= 0 {
				return "", never
			}
			return about(kind, 1), 20 * ms
		}
	}
	replies := func(flags string, after time.Duration) server {
		return func(kind uint16, _ bool) (string, time.Duration) {
			m := []byte(about(kind, 0))
			copy(m[2:], flags)
			return string(m), after
		}
	}
	const both = "fd07::2 10.0.0.1"
	for _, tt := range []struct {
		what    string
		servers []server
		kinds   []uint16
		want    string
		took    time.Duration
		asked   string
	}{
		{"both at once", []server{answers(20*ms, 20*ms)}, nil, both, 20 * ms, ""},
		{"IPv6 a little later", []server{answers(60*ms, 20*ms)}, nil, both, 60 * ms, ""},
		{"IPv4 a little later", []server{answers(20*ms, 60*ms)}, nil, both, 60 * ms, ""},
		{"a server far away, IPv6 later", []server{answers(550*ms, 300*ms)}, nil, both, 550 * ms, ""},
		{"no answer about IPv6", []server{answers(never, 20*ms)}, nil, "10.0.0.1", 70 * ms, ""},
		{"no answer about IPv4", []server{answers(20*ms, never)}, nil, "fd07::2", 70 * ms, ""},
		{"no answer about IPv6, far away", []server{answers(never, 300*ms)}, nil, "10.0.0.1", 600 * ms, ""},
		{"no answer about IPv6, until the attempt ends", []server{answers(never, 800*ms)}, nil, "10.0.0.1", 1000 * ms, ""},
		{"one kind only", []server{answers(never, 20*ms)}, []uint16{A}, "10.0.0.1", 20 * ms, ""},
		{"one kind of address, both answers", []server{func(kind uint16, _ bool) (string, time.Duration) {
			if kind == AAAA {
				return about(AAAA, 1), 400 * ms
			}
			return about(A, 0), 20 * ms
		}}, nil, "fd07::2", 400 * ms, ""},
		{"no address", []server{replies(ok, 20*ms)}, nil, "no such host", 20 * ms, ""},
		{"no such name", []server{replies("\x81\x83", 20*ms)}, nil, "no such host", 20 * ms, ""},
		{"a lost question", []server{lossy(2)}, nil, both, 1020 * ms, ""},
		{"two lost questions", []server{lossy(4)}, nil, both, 4020 * ms, ""},
		{"a server slower than the first attempt", []server{answers(2500*ms, 2500*ms)}, nil, both, 3500 * ms, ""},
		{"a slow server", []server{answers(5*time.Second, 5*time.Second)}, nil, both, 9 * time.Second, ""},
		{"a silent server", []server{silent}, []uint16{A}, "i/o timeout", 10 * time.Second, "1/A@0s 1/A@1s 1/A@4s"},
		{"the second server", []server{silent, answers(20*ms, 20*ms)}, nil, both, 1020 * ms, ""},
		{"servers in turn", []server{silent, lossy(1)}, []uint16{A}, "10.0.0.1", 5020 * ms, "1/A@0s 2/A@1s 1/A@2s 2/A@5s"},
		{"a failing server", []server{replies("\x81\x82", 20*ms), answers(20*ms, 20*ms)}, nil, both, 40 * ms, ""},
		{"failing servers", []server{replies("\x81\x82", 0)}, nil, "server misbehaving", 0, ""},
		{"by TCP", []server{func(kind uint16, tcp bool) (string, time.Duration) {
			if tcp {
				return about(kind, 1), 100 * ms
			}
			m, _ := replies("\x83\x80", 0)(kind, false)
			return m, 20 * ms
		}}, nil, both, 220 * ms, ""},
		{"IPv6 by TCP, while the other is there", []server{func(kind uint16, tcp bool) (string, time.Duration) {
			if kind == A || tcp {
				return about(kind, 1), 200 * ms
			}
			m, _ := replies("\x83\x80", 0)(kind, false)
			return m, 210 * ms
		}}, nil, both, 410 * ms, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			net := &servers{all: map[string]server{}, began: time.Now()}
			r := &Resolver{Dial: net.dial}
			for i, s := range tt.servers {
				at := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
				r.Servers = append(r.Servers, at)
				net.all[at.String()] = s
			}
			if tt.kinds == nil {
				tt.kinds = []uint16{AAAA, A}
			}
			ips, _, err := r.Lookup(t.Context(), "both.test", tt.kinds...)
			took := time.Since(net.began)
			net.wg.Wait()
			var words []string
			for _, ip := range ips {
				words = append(words, ip.String())
			}
			got := strings.Join(words, " ")
			if err != nil {
				got = err.Error()
			}
			if got != tt.want && !(err != nil && strings.HasSuffix(got, tt.want)) || took != tt.took {
				t.Errorf("%s: %s after %v, want %s after %v", tt.what, got, took, tt.want, tt.took)
			}
			if asked := strings.ReplaceAll(strings.Join(net.asked, " "), "192.0.2.", ""); tt.asked != "" && asked != tt.asked {
				t.Errorf("%s: asked %s, want %s", tt.what, asked, tt.asked)
			}
		})
	}
}

// TestWithoutEDNS asks servers that don't know EDNS, and say so in different ways, three times: at first, again, and when what
// was remembered has expired.
func TestWithoutEDNS(t *testing.T) {
	const again, expired = "1/A@20ms", "1/A+@20m0s 1/A@20m0s"
	for _, tt := range []struct{ what, refusal, first, second, third string }{
		{"FORMERR", "\x81\x81", "1/A+@0s 1/A@0s", again, expired},
		{"FORMERR, with the question", "\x81\x81q", "1/A+@0s 1/A@0s", again, expired},
		{"NOTIMP", "\x81\x84", "1/A+@0s 1/A@0s", again, expired},
		{"NOTIMP, with the question", "\x81\x84q", "1/A+@0s 1/A@0s", again, expired},
		{"nothing", "", "1/A+@0s 1/A@1s", "1/A@1.02s", "1/A+@20m0s 1/A@20m1s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			net := &servers{began: time.Now(), plain: map[string]string{"192.0.2.1": tt.refusal}, all: map[string]server{
				"192.0.2.1": func(kind uint16, _ bool) (string, time.Duration) { return about(kind, 1), 20 * time.Millisecond },
			}}
			r := &Resolver{Dial: net.dial, Servers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
			for i, want := range []string{tt.first, tt.second, tt.third} {
				if i == 2 {
					time.Sleep(20*time.Minute - time.Since(net.began))
				}
				net.asked = nil
				ips, _, err := r.Lookup(t.Context(), "both.test", A)
				if err != nil || len(ips) != 1 {
					t.Errorf("%s: %v, %v", tt.what, ips, err)
				}
				net.wg.Wait()
				if got := strings.ReplaceAll(strings.Join(net.asked, " "), "192.0.2.", ""); got != want {
					t.Errorf("%s: look-up %d asked %s, want %s", tt.what, i, got, want)
				}
			}
			if len(r.plain) != 1 {
				t.Errorf("%d servers are remembered", len(r.plain))
			}
		})
	}
}

// TestRefusingAlways asks a server that says FORMERR with EDNS and without.
func TestRefusingAlways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := &servers{began: time.Now(), plain: map[string]string{"192.0.2.1": "\x81\x81q"}, all: map[string]server{
			"192.0.2.1": func(kind uint16, _ bool) (string, time.Duration) {
				m := []byte(about(kind, 0))
				copy(m[2:], "\x81\x81")
				return string(m), 0
			},
		}}
		r := &Resolver{Dial: net.dial, Servers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
		if ips, _, err := r.Lookup(t.Context(), "both.test", A); err != ErrServer {
			t.Errorf("%v, %v", ips, err)
		}
		net.wg.Wait()
		if len(r.plain) != 0 {
			t.Error("it is remembered as a server that answers without EDNS")
		}
	})
}
