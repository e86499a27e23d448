package packet

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// What is printed is what is read, whatever the set.
func TestOffloadsAreReadAsPrinted(t *testing.T) {
	for o := range AllOffloads + 1 {
		if got, err := ParseOffloads(o.String()); err != nil || got != o {
			t.Errorf("%q is read as %q, %v", o, got, err)
		}
		var union Offload
		for one := range o.Each() {
			if one&(one-1) != 0 || one&o == 0 {
				t.Errorf("%q contains %q", o, one)
			}
			union |= one
		}
		if union != o {
			t.Errorf("%q consists of %q", o, union)
		}
	}
	for list, want := range map[string]Offload{"": 0, "all": AllOffloads, " gso, tso,,": GSO | TSO, "tcp-gro udp-gro": TCPGRO | UDPGRO} {
		if got, err := ParseOffloads(list); err != nil || got != want {
			t.Errorf("%q is read as %q, %v", list, got, err)
		}
	}
	_, err := ParseOffloads("tso,lro")
	if err == nil || !strings.Contains(err.Error(), `"lro"`) || !strings.Contains(err.Error(), "tcp-gro") {
		t.Errorf("an unknown name: %v", err)
	}
	if s := AllOffloads.String(); s != "tso,uso,tcp-gro,udp-gro,gso,gro" {
		t.Error(s)
	}
	if s := (TSO | UDPGRO).String(); s != "tso,udp-gro" {
		t.Error(s)
	}
	if first := slices.Collect(AllOffloads.Each())[0]; first != TSO {
		t.Errorf("the first offload is %q", first)
	}
}

func TestOffloadStatesAsJSON(t *testing.T) {
	got, err := json.Marshal(OffloadStates{GSO: OffloadOn, TCPGRO: OffloadWithdrawn})
	if want := `{"gso":"on","tcp-gro":"withdrawn"}`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	var states OffloadStates
	if err := json.Unmarshal(got, &states); err != nil || len(states) != 2 || states[GSO] != OffloadOn || states[TCPGRO] != OffloadWithdrawn {
		t.Errorf("%s is read as %v, %v", got, states, err)
	}
	if err := json.Unmarshal([]byte(`{"gso":"perhaps"}`), &states); err == nil {
		t.Error("an unknown state is read")
	}
}

func TestDropsAsJSON(t *testing.T) {
	got, err := json.Marshal(map[Drop]int{DropNoPeer: 3})
	if want := `{"no_peer":3}`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	var drops map[Drop]int
	if err := json.Unmarshal(got, &drops); err != nil || len(drops) != 1 || drops[DropNoPeer] != 3 {
		t.Errorf("%s is read as %v, %v", got, drops, err)
	}
	if err := json.Unmarshal([]byte(`{"tired":1}`), &drops); err == nil {
		t.Error("an unknown reason is read")
	}
}

func TestOffloadStates(t *testing.T) {
	const off, on, withdrawn = OffloadOff, OffloadOn, OffloadWithdrawn
	for s, want := range map[OffloadState]string{off: "off", on: "on", withdrawn: "withdrawn", 9: "unknown"} {
		if s.String() != want {
			t.Errorf("%d is %q", s, s)
		}
	}
	for _, c := range []struct{ a, b, want OffloadState }{
		{on, on, on}, {on, off, off}, {off, on, off}, {off, off, off},
		{on, withdrawn, withdrawn}, {withdrawn, off, withdrawn}, {withdrawn, withdrawn, withdrawn},
	} {
		if got := c.a.Merge(c.b); got != c.want {
			t.Errorf("%v and %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}
