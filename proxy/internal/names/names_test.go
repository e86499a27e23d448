package names

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A book is a resolver that takes a second, and knows what is written in it. It never ends looking for "slow".
type book struct {
	mu    sync.Mutex
	addrs map[string]string
	asked int
	sent  []string

	dropped int
}

func newBook() *book { return &book{addrs: make(map[string]string)} }

func (b *book) write(host, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addrs[host] = addr
}

func (b *book) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	b.mu.Lock()
	b.asked++
	addr := b.addrs[host]
	b.mu.Unlock()
	if host == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(time.Second)
	if addr == "" {
		return nil, errors.New("no such host")
	}
	return []netip.Addr{netip.MustParseAddr(addr)}, nil
}

func (b *book) send(data []byte, to netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent = append(b.sent, fmt.Sprintf("%s>%v", data, to))
}

func (b *book) drop(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped += n
}

// since returns what was sent, and how many look-ups were begun, since it was asked last.
func (b *book) since() (sent string, asked int) {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	sent, asked = strings.Join(b.sent, " "), b.asked
	b.sent, b.asked = nil, 0
	return sent, asked
}

// pass lets time pass, and what happens at its end.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		n := New(t.Context(), b.lookup, b.send, b.drop)
		defer n.Close()
		want := func(what, sent string, asked int) {
			t.Helper()
			if s, a := b.since(); s != sent || a != asked {
				t.Errorf("%s: sent %q, asked %d times; want %q, %d", what, s, a, sent, asked)
			}
		}
		b.write("a", "192.0.2.1")
		b.write("b", "192.0.2.2")
		buf := []byte("1")
		n.Send("slow", 1, buf)
		n.Send("a", 1, buf)
		buf[0] = '2' // Send has a copy
		n.Send("a", 2, buf)
		pass(time.Millisecond)
		n.Send("b", 3, buf)
		want("at first", "", 3)
		pass(time.Second)
		want("found", "1>192.0.2.1:1 2>192.0.2.1:2 2>192.0.2.2:3", 0)
		n.Send("a", 1, []byte("3"))
		want("known", "3>192.0.2.1:1", 0)

		b.write("a", "192.0.2.9")
		pass(lifetime)
		n.Send("a", 1, []byte("4"))
		want("asked again meanwhile", "4>192.0.2.1:1", 1)
		pass(time.Second)
		n.Send("a", 1, []byte("5"))
		want("found anew", "5>192.0.2.9:1", 0)
		b.write("a", "")
		pass(lifetime)
		n.Send("a", 1, []byte("6"))
		pass(time.Second)
		n.Send("a", 1, []byte("7"))
		want("not found any more", "6>192.0.2.9:1 7>192.0.2.9:1", 1)

		n.Send("none", 1, nil)
		pass(time.Second)
		n.Send("none", 1, nil)
		want("not found", "", 1)
		if b.dropped != 3 { // and one to "slow"
			t.Errorf("%d datagrams were dropped, want 3", b.dropped)
		}
		b.write("none", "192.0.2.3")
		pass(pause)
		n.Send("none", 1, []byte("8"))
		pass(time.Second)
		want("found later", "8>192.0.2.3:1", 1)
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		n := New(t.Context(), b.lookup, b.send, b.drop)
		for i := range 100 {
			b.write(fmt.Sprint(i), "192.0.2.1")
		}
		for i := range 100 {
			n.Send(fmt.Sprint(i%10), 1, nil)
		}
		if _, asked := b.since(); asked != maxLookups {
			t.Errorf("%d names are looked up", asked)
		}
		pass(time.Second)
		if sent, _ := b.since(); len(strings.Fields(sent)) != maxLookups*maxWaiting {
			t.Errorf("%d datagrams waited", len(strings.Fields(sent)))
		}
		if b.dropped != 100-maxLookups*maxWaiting {
			t.Errorf("%d datagrams were dropped", b.dropped)
		}
		for i := range 100 {
			n.Send(fmt.Sprint(i), 1, nil)
			pass(time.Second)
			if len(n.known) > maxNames {
				t.Fatalf("%d names are known", len(n.known))
			}
		}
		if sent, asked := b.since(); asked != 100-maxLookups || len(strings.Fields(sent)) != 100 {
			t.Errorf("%d look-ups, %d datagrams", asked, len(strings.Fields(sent)))
		}

		n.Send("slow", 1, nil)
		pass(timeout + pause - time.Second)
		n.Send("slow", 1, nil)
		if _, asked := b.since(); asked != 1 {
			t.Errorf("a look-up without an end is begun %d times", asked)
		}
		pass(time.Second)
		n.Send("slow", 1, nil)
		if _, asked := b.since(); asked != 1 {
			t.Errorf("after its time-out and a pause it is begun %d times", asked)
		}
		began := time.Now()
		n.Close()
		if n.asking != 0 || time.Since(began) > 0 {
			t.Errorf("closed after %v, %d look-ups go on", time.Since(began), n.asking)
		}
	})
}
