package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBlast sends over the loopback interface, where nothing is reordered or duplicated.
func TestBlast(t *testing.T) {
	for _, sizes := range [][]int{{128}, testMix.sizes(1420)} {
		in, err := dial("127.0.0.1:0", true)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(in)
		name, err := unix.Getsockname(in)
		if err != nil {
			t.Fatal(err)
		}
		out, err := dial(fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port), false)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(out)
		var s sent
		var senderr error
		var sender sync.WaitGroup
		sender.Go(func() { s.Packets, senderr = sendFor(out, sizes, 20*time.Millisecond) })
		r, err := receiveFor(in, 5*time.Second, 100*time.Millisecond, 5*time.Second)
		sender.Wait()
		if err != nil || senderr != nil {
			t.Fatal(err, senderr)
		}
		if _, err := r.values(testMix, s); err != nil {
			t.Error(err)
		}
		if r.Reordered != 0 || r.Duplicates != 0 {
			t.Errorf("sizes %v: %+v of %d", sizes, r, s.Packets)
		}
	}
}

func TestMixIsInEveryBurst(t *testing.T) {
	in, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	fd, err := dial(in.LocalAddr().String(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	sizes := testMix.sizes(1420)
	if _, err := sendFor(fd, sizes, 0); err != nil {
		t.Fatal(err)
	}
	in.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 2000)
	for i := range 3 * len(sizes) {
		n, err := in.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n != sizes[i%len(sizes)] {
			t.Errorf("datagram %d has %d bytes, want %d", i, n, sizes[i%len(sizes)])
		}
	}
}

func TestSinkWaitsNoLongerThanItShould(t *testing.T) {
	var out strings.Builder
	if err := sink([]string{"-listen", "127.0.0.1:0", "-first", "10ms"}, &out); err != nil {
		t.Fatal(err)
	}
	word, text, _ := strings.Cut(out.String(), "\n")
	var r received
	if err := json.Unmarshal([]byte(text), &r); word != sinkReady || err != nil || r.Packets != 0 {
		t.Errorf("it printed %q (%v)", &out, err)
	}
}

func TestBlastRefuses(t *testing.T) {
	for _, args := range []string{"-sizes 15", "-sizes 64,x", "-to 10.9.0.2", "-to [::1]:9000"} {
		if err := send(strings.Fields(args), nil); err == nil {
			t.Errorf("send %s: no error", args)
		}
	}
}
