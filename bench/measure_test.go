package main

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestParseIperf(t *testing.T) {
	r, err := parseIperf([]byte(iperfJSON))
	if err != nil {
		t.Fatal(err)
	}
	if r.End.Received.Bits != 3.2e9 || r.End.Received.Bytes != 4e8 || r.End.Sent.Retransmits != 7 {
		t.Errorf("got %+v", r.End)
	}
	for text, want := range map[string]string{
		"": "not JSON",
		`{"start":{},"error":"unable to connect to server: Connection refused"}`:          "Connection refused",
		`{"end":{"sum_sent":{"bytes":5},"sum_received":{"bytes":0,"bits_per_second":0}}}`: "nothing was received",
	} {
		if _, err := parseIperf([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseIperf(%q): want an error with %q, got %v", text, want, err)
		}
	}
}

// iperfJSON is the output of iperf3 3.12 -J, shortened.
const iperfJSON = `{
	"start": {"version": "iperf 3.12"},
	"intervals": [{"sum": {"bytes": 1, "bits_per_second": 1, "retransmits": 1}}],
	"end": {
		"streams": [{"sender": {"retransmits": 3}}, {"sender": {"retransmits": 4}}],
		"sum_sent": {"start": 0, "end": 1.0, "bytes": 400130048, "bits_per_second": 3201040384, "retransmits": 7, "sender": true},
		"sum_received": {"start": 0, "end": 1.0, "bytes": 400000000, "bits_per_second": 3.2e9, "sender": true}
	}
}`

func TestParsePing(t *testing.T) {
	const text = `PING 10.9.0.2 (10.9.0.2) 56(84) bytes of data.
64 bytes from 10.9.0.2: icmp_seq=1 ttl=64 time=0.250 ms
64 bytes from 10.9.0.2: icmp_seq=1 ttl=64 time=0.900 ms (DUP!)
64 bytes from 10.9.0.2: icmp_seq=2 ttl=64 time=12.5 ms
64 bytes from 10.9.0.2: icmp_seq=4 ttl=64 time=103 ms

--- 10.9.0.2 ping statistics ---
4 packets transmitted, 3 received, +1 duplicates, 25% packet loss, time 3ms
rtt min/avg/max/mdev = 0.250/38.583/103.000/45.853 ms
`
	times, sent, err := parsePing(text)
	if err != nil || sent != 4 || len(times) != 3 || times[0] != 0.25 || times[1] != 12.5 || times[2] != 103 {
		t.Errorf("got %v of %d, %v", times, sent, err)
	}
	for _, bad := range []string{
		"",
		"PING x\n",
		strings.Replace(text, "4 packets transmitted", "2 packets transmitted", 1),
		"3 packets transmitted, 0 received, 100% packet loss, time 0ms\n",
		"99999999999999999999 packets transmitted, 0 received\n",
	} {
		if _, _, err := parsePing(bad); err == nil {
			t.Errorf("parsePing(%q): no error", bad)
		}
	}
}

func TestProc(t *testing.T) {
	const status = "Name:\tthroughline\nVmPeak:\t 1234567 kB\nVmHWM:\t   18000 kB\nVmRSS:\t    9000 kB\nThreads:\t7\n"
	if kib, err := statusKiB(status, "VmHWM"); err != nil || kib != 18000 {
		t.Errorf("VmHWM = %v, %v", kib, err)
	}
	if _, err := statusKiB(status, "Threads"); err == nil {
		t.Error("Threads, which has no unit, was read as memory")
	}
	if _, err := statusKiB("", "VmRSS"); err == nil { // a process that has ended has no memory
		t.Error("no error without VmRSS")
	}
	const stat = "4711 (wire) guard (x) S 1 4711 4711 0 -1 4194560 1 2 3 4 250 1025 7 8 20 0 9 0 5 6 7\n"
	if secs, err := statSeconds(stat); err != nil || secs != 12.75 {
		t.Errorf("utime and stime = %v, %v; want 12.75", secs, err)
	}
	for _, bad := range []string{"", "1 (x) S 1", "1 (x) S 1 2 3 4 5 6 7 8 9 10 a b"} {
		if _, err := statSeconds(bad); err == nil {
			t.Errorf("statSeconds(%q): no error", bad)
		}
	}
}

func TestReceivedValues(t *testing.T) {
	v, err := received{Packets: 2010, Seconds: 2, Reordered: 3, Duplicates: 10}.values("udp128", sent{Packets: 4000})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]float64{"delivered": 1.005, "reordered": 3, "duplicates": 10, "lost": 50} {
		if got := v["udp128."+id]; math.Abs(got-want) > 1e-9 {
			t.Errorf("%s = %v, want %v", id, got, want)
		}
	}
	if _, err := (received{}).values("udp128", sent{Packets: 10}); err == nil {
		t.Error("no error, though nothing arrived")
	}
	if _, err := (received{Packets: 11, Seconds: 1}).values("udp128", sent{Packets: 10}); err == nil {
		t.Error("no error, though more arrived than were sent")
	}
}

func TestOrder(t *testing.T) {
	const w = remembered
	for _, c := range []struct {
		name              string
		numbers           []uint64
		reordered, double uint64
	}{
		{"in order", []uint64{0, 1, 2, 3}, 0, 0},
		{"losses", []uint64{5, 6, 100, 1000}, 0, 0},
		{"one overtaken", []uint64{0, 2, 1, 3}, 1, 0},
		{"twice", []uint64{0, 1, 1, 2, 0}, 0, 2},
		{"overtaken twice", []uint64{0, 2, 1, 1}, 1, 1},
		{"a long gap, filled", []uint64{0, 200, 64, 63, 65, 128, 199, 1}, 6, 0},
		{"a number whose place was another's", []uint64{3, w + 2, w + 3, 4}, 1, 0},
		{"the oldest that is remembered", []uint64{0, w - 1, 0}, 0, 1},
		{"too old to know", []uint64{0, w, 0}, 1, 0},
		{"a leap over everything", []uint64{0, 1, 2, 5 * w, 4*w + 1}, 1, 0},
	} {
		var o order
		for _, n := range c.numbers {
			o.add(n)
		}
		if o.reordered != c.reordered || o.duplicates != c.double {
			t.Errorf("%s: %d reordered, %d duplicates; want %d, %d", c.name, o.reordered, o.duplicates, c.reordered, c.double)
		}
	}
}

// TestOrderModel compares with a slow and obvious way.
func TestOrderModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var o order
		seen := map[uint64]bool{}
		var top, reordered, duplicates uint64
		started := false
		for range 2000 {
			var n uint64
			switch k := r.IntN(10); {
			case k < 6:
				n = top + 1
			case k < 8:
				n = top + r.Uint64N(300)
			case k == 8 && r.IntN(20) == 0:
				n = top + r.Uint64N(3*remembered)
			default:
				n = top - min(top, r.Uint64N(400))
			}
			o.add(n)
			switch {
			case !started || n > top:
				top, started = n, true
			case top-n >= remembered:
				reordered++
			case seen[n]:
				duplicates++
			default:
				reordered++
			}
			seen[n] = true
		}
		if o.reordered != reordered || o.duplicates != duplicates {
			t.Fatalf("%d reordered, %d duplicates; want %d, %d", o.reordered, o.duplicates, reordered, duplicates)
		}
	}
}

func BenchmarkOrder(b *testing.B) {
	var o order
	for n := uint64(0); b.Loop(); n += 4 { // three of four are lost
		o.add(n)
	}
}
