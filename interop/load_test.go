package interop

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// ping sends n pings from the side to an address, each after the answer to the last, and returns an error unless all are
// answered. It calls ping(8) once for each, as ping(8) waits only shortly for the last of several answers.
func (s *side) ping(to string, n int, more ...string) error {
	const script = `n=$1; shift; while [ $n -gt 0 ]; do ping -n -q -c 1 -W 2 "$@" || exit; n=$((n-1)); done`
	args := append([]string{"-c", script, "sh", strconv.Itoa(n)}, more...)
	out, err := s.in("sh", append(args, to)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ping from %s: %d of %d answered: %s", s.ns, strings.Count(string(out), " 1 received"), n,
			strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", " "))
	}
	return nil
}

// reach returns an error unless both inner addresses of the other side answer.
func (s *side) reach(o *side) error {
	for _, to := range o.inner {
		if err := s.ping(to, 3); err != nil {
			return err
		}
	}
	return nil
}

// wantReach fails the test unless the other side answers pings.
func (s *side) wantReach(o *side) {
	s.t.Helper()
	if err := s.reach(o); err != nil {
		s.t.Errorf("%v\n%s\n%s", err, s.counters(), o.counters())
	}
}

// counters returns what the kernel and the daemon counted on the side, which shows how far packets came.
func (s *side) counters() string {
	const script = `wg show $0 transfer | cut -f2-; cd /sys/class/net/$0/statistics; grep . {rx,tx}_{packets,dropped,errors}
		cd ../../cable/statistics; grep . {rx,tx}_{packets,dropped,errors}; nstat -as 'Icmp*Echo*' 'Udp*Err*' 'Ip*Discards' 'Ip*NoRoutes'`
	out, _ := s.in("bash", "-c", script, s.tunnel).CombinedOutput()
	return s.ns + ": " + strings.Join(strings.Fields(string(out)), " ")
}

// wantNoReach fails the test if the other side answers pings.
func (s *side) wantNoReach(o *side, why string) {
	s.t.Helper()
	if err := s.in("ping", "-c", "1", "-W", "1", "-q", o.inner[ipv4]).Run(); err == nil {
		s.t.Errorf("%s reaches %s, %s", s.ns, o.ns, why)
	}
}

// A flow is what iperf3 measured.
type flow struct {
	bits float64 // bit/s, as received
	lost float64 // percent; UDP only
}

// serve starts an iperf3 server on the side, until stop is called.
func (s *side) serve() (stop func()) {
	s.t.Helper()
	d, err := launch(s.in("iperf3", "-s", "--forceflush"))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := eventually(func() error {
		if !strings.Contains(d.log(), "Server listening") {
			return fmt.Errorf("iperf3 -s: %s", d.log())
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		d.cmd.Process.Signal(syscall.SIGKILL)
		<-d.done
	}
}

// iperf runs an iperf3 client against the other side's server.
func (s *side) iperf(to string, args ...string) (flow, error) {
	out, err := s.in("iperf3", append([]string{"-J", "--connect-timeout", "3000", "-c", to}, args...)...).Output()
	type sum struct {
		Bytes float64 `json:"bytes"`
		Bits  float64 `json:"bits_per_second"`
		Lost  float64 `json:"lost_percent"`
	}
	var r struct {
		Error string `json:"error"`
		End   struct {
			Sum      sum `json:"sum"` // UDP: loss as the receiver saw it
			Received sum `json:"sum_received"`
		} `json:"end"`
	}
	if e := json.Unmarshal(out, &r); e != nil || r.Error != "" || err != nil {
		return flow{}, fmt.Errorf("iperf3 %v: %v %v %s", args, err, e, r.Error)
	}
	f := flow{bits: r.End.Received.Bits, lost: r.End.Sum.Lost}
	if r.End.Received.Bytes <= 0 {
		return f, fmt.Errorf("iperf3 %v: nothing arrived\n%s", args, out)
	}
	return f, nil
}

// slowUDP sends UDP at a rate at which no tunnel should lose anything. A machine that is busy elsewhere does lose some, so
// only loss three times in a row is an error.
func (s *side) slowUDP(to string, more []string) (f flow, err error) {
	for range 3 {
		f, err = s.iperf(to, append(more, "-t", "1", "-u", "-b", "50M")...)
		if err == nil && f.lost > 2 && !isRaceBuild() {
			err = fmt.Errorf("iperf3 -u %v: %.1f %% of 50 Mbit/s lost", more, f.lost)
		}
		if err == nil {
			break
		}
	}
	return f, err
}
