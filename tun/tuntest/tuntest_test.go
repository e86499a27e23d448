package tuntest

import (
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"

	"throughline/packet"
	"throughline/tun"
)

func TestCarries(t *testing.T) {
	d := New(1420)
	q := d.Queues()[0]
	for _, s := range []string{"one", "two", "three"} {
		if !d.Outbound([]byte(s)) {
			t.Fatal("closed")
		}
	}
	b := packet.New()
	if more, err := q.Read(b); more || err != nil || len(b.Packets) != 3 || string(b.Bytes(2)) != "three" {
		t.Fatalf("%d packets, %v, %v", len(b.Packets), more, err)
	}
	b.Packets[1].Drop = packet.DropReplay
	if err := q.Write(b); err != nil {
		t.Fatal(err)
	}
	copy(b.Slab, make([]byte, 1000)) // what came in is a copy
	if s := string(<-d.Inbound()) + string(<-d.Inbound()); s != "onethree" {
		t.Errorf("received %q", s)
	}
}

func TestFullBatch(t *testing.T) {
	d := New(1420)
	q := d.Queues()[0]
	for i := range 5 {
		d.Outbound([]byte{byte(i)})
	}
	b := packet.NewSize(1000, 2)
	var got []byte
	for _, want := range []bool{true, true, false} {
		b.Reset()
		more, err := q.Read(b)
		if err != nil || more != want {
			t.Fatalf("more %v, %v", more, err)
		}
		for i := range b.Packets {
			got = append(got, b.Bytes(i)...)
		}
	}
	if string(got) != "\x00\x01\x02\x03\x04" {
		t.Errorf("packets %v", got)
	}
	d.Outbound(make([]byte, 2000))
	b.Reset()
	if _, err := q.Read(b); err == nil || errors.Is(err, os.ErrClosed) {
		t.Errorf("a packet larger than a batch: %v", err)
	}
}

func TestFullDeviceDrops(t *testing.T) {
	d := New(1420)
	b := packet.NewSize(1<<20, Depth+2)
	for range Depth + 2 {
		b.Append([]byte{1})
	}
	if err := d.Queues()[0].Write(b); err != nil {
		t.Fatal(err)
	}
	if b.Packets[Depth-1].Drop != 0 || b.Packets[Depth].Drop != packet.DropTUN || b.Packets[Depth+1].Drop != packet.DropTUN {
		t.Error("what there is no room for must be dropped, and that only")
	}
}

func TestEvents(t *testing.T) {
	d := New(1420)
	unchanged := func(up bool, mtu int) {
		t.Helper()
		d.SetUp(up)
		d.SetMTU(mtu)
		select {
		case e := <-d.Events():
			t.Errorf("event %b without a change", e)
		default:
		}
	}
	if e := <-d.Events(); e != tun.Up {
		t.Errorf("the first event is %b", e)
	}
	unchanged(true, 1420)
	d.SetUp(false)
	d.SetMTU(1300)
	if e := <-d.Events(); e != tun.Down|tun.MTU {
		t.Errorf("event %b", e)
	}
	unchanged(false, 1300)
	d.SetUp(true)
	d.SetUp(false)
	d.SetUp(true)
	if e := <-d.Events(); e != tun.Up {
		t.Errorf("event %b, want the last", e)
	}
	d.SetUp(false)
	if e := <-d.Events(); e != tun.Down {
		t.Errorf("event %b", e)
	}
	down := New(1420) // and set down before anybody looked
	down.SetUp(false)
	if e := <-down.Events(); e != tun.Down {
		t.Errorf("event %b of a device that is down", e)
	}
	d.SetName("other")
	if n, _ := d.Name(); n != "other" {
		t.Error(n)
	}
	if m, _ := d.MTU(); m != 1300 {
		t.Error(m)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(1420)
		q := d.Queues()[0]
		for range Depth {
			d.Outbound([]byte{1})
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if d.Outbound([]byte{1}) {
				t.Error("Outbound found room")
			}
		})
		e := New(1420)
		wg.Go(func() {
			if _, err := e.Queues()[0].Read(packet.New()); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Read: %v", err)
			}
		})
		synctest.Wait() // both wait
		for range 2 {
			d.Close()
			e.Close()
		}
		wg.Wait()
		var events tun.Event
		for e := range d.Events() { // which ends because they are closed
			events |= e
		}
		if events != tun.Up {
			t.Errorf("events %b", events)
		}
		if _, ok := <-d.Inbound(); ok {
			t.Error("inbound is open")
		}
		if _, err := q.Read(packet.New()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		if err := q.Write(packet.New()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		if _, err := d.Name(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Name: %v", err)
		}
		if _, err := d.MTU(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("MTU: %v", err)
		}
		d.SetUp(true) // nothing, and no panic
	})
}
