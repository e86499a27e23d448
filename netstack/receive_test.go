package netstack_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"throughline/netstack"
	"throughline/packet"
	"throughline/tun"
)

// TestUnreadIsBounded checks that connections that nobody reads hold no more than the budget of the stack: those that were
// never read, and those that were read at full speed before. Then it reads them, and all that was sent must come.
func TestUnreadIsBounded(t *testing.T) {
	const count, budget, least = 64, 4 << 20, 32 << 10
	for _, first := range []int64{0, 1 << 20} {
		var carried atomic.Int64 // bytes sent to b
		a := newStack(t, netstack.Options{Addresses: []netip.Addr{a4}})
		b := newStack(t, netstack.Options{Addresses: []netip.Addr{b4}, Receive: budget})
		(&wire{alter: func(batch *packet.Batch, to tun.Queue) {
			if to == b.Queues()[0] {
				for i := range batch.Packets {
					carried.Add(int64(batch.Packets[i].Len))
				}
			}
		}}).join(t, a, b)
		l, err := b.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		// One after another, so that each has all of what is left.
		var senders sync.WaitGroup
		var ends []net.Conn
		sent := make([]int64, count)
		for i := range count {
			c, err := a.DialContext(within(t), "tcp", on(b4, 80))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			d, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			ends = append(ends, d)
			senders.Go(func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Write(buf)
					sent[i] += int64(n)
					if errors.Is(err, os.ErrDeadlineExceeded) {
						c.(interface{ CloseWrite() error }).CloseWrite()
						return
					} else if err != nil {
						t.Error(err)
						return
					}
				}
			})
			if _, err := io.CopyN(io.Discard, d, first); err != nil {
				t.Fatal(err)
			}
			c.SetWriteDeadline(time.Now().Add(time.Second)) // by then it is full, and waits
		}
		senders.Wait()
		held := carried.Load() - count*first
		st := b.Status()
		t.Logf("%d connections, of which %d bytes were read: %d KiB are held, %d KiB reserved, shortened %d times", count, first, held>>10, st.Reserved>>10, st.Shortened)
		const most = budget + budget/2 + count*least
		if st.Reserved > most || held > most {
			t.Errorf("%d bytes are held and %d reserved, want %d at most", held, st.Reserved, most)
		}
		if st.Buffers != count || st.Shortened == 0 {
			t.Errorf("%+v", st)
		}
		var readers sync.WaitGroup
		for i, d := range ends {
			readers.Go(func() {
				d.SetReadDeadline(time.Now().Add(patience))
				if n, err := io.Copy(io.Discard, d); err != nil || n+first != sent[i] {
					t.Errorf("received %d bytes of %d: %v", n+first, sent[i], err)
				}
				d.Close()
			})
		}
		readers.Wait()
		if st := b.Status(); st.Buffers != 0 || st.Reserved != 0 {
			t.Errorf("after the end: %+v", st)
		}
	}
}
