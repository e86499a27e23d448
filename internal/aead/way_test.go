package aead

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"

	"throughline/packet"
)

// needs says of each way there may be whether this CPU has what it needs.
var needs = map[string]bool{
	"avx512": cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ &&
		cpu.X86.HasAVX512IFMA,
	"avx2":     cpu.X86.HasAVX2 && cpu.X86.HasBMI2,
	"xcrypto":  true,
	"portable": true,
}

// A way is offered where the CPU has what it needs, and nowhere else; the best comes first.
func TestWaysByCPU(t *testing.T) {
	want := []string{"xcrypto", "portable"}
	if runtime.GOARCH == "amd64" {
		want = append([]string{"avx512", "avx2"}, want...)
	}
	var names []string
	for _, w := range ways {
		names = append(names, w.name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("the ways for %s are %v, want %v", runtime.GOARCH, names, want)
	}
	here := Ways()
	for _, w := range ways {
		has, known := needs[w.name]
		if !known {
			t.Errorf("there is a way %s of which the tests know nothing", w)
		}
		if offered := slices.Contains(here, w); offered != has {
			t.Errorf("%s: offered %v, the CPU has what it needs %v", w, offered, has)
		}
	}
}

func TestWays(t *testing.T) {
	here := Ways()
	var names []string
	for _, w := range here {
		names = append(names, w.String())
		if got, err := Named(w.String()); got != w || err != nil {
			t.Errorf("Named(%q) = %v, %v", w, got, err)
		}
	}
	t.Logf("this machine: %s", strings.Join(names, ", "))
	if Best() != here[0] {
		t.Errorf("Best is %v, the first is %v", Best(), here[0])
	}
	if !slices.Contains(here, xcrypto) || here[len(here)-1] != portable {
		t.Errorf("%v: want xcrypto among them, and portable last", names)
	}
	if slices.Sort(names); len(slices.Compact(names)) != len(here) {
		t.Errorf("two ways of one name: %v", names)
	}
	here[0] = nil
	if Ways()[0] == nil {
		t.Error("who changes what Ways returned changes the ways")
	}
}

// A way that computes something else than the portable one is not offered, whatever it gets wrong.
func TestWaysThatDisagree(t *testing.T) {
	all := ways
	defer func() { ways = all }()
	for what, spoil := range map[string]func(w *Way){
		"a sealed bit": func(w *Way) {
			w.seal = func(k *Key, slab []byte, train []packet.Packet) {
				sealPortable(k, slab, train)
				slab[train[len(train)-1].Off+train[len(train)-1].Len-1] ^= 0x80
			}
		},
		"a length": func(w *Way) {
			w.seal = func(k *Key, slab []byte, train []packet.Packet) {
				sealPortable(k, slab, train)
				train[0].Len--
			}
		},
		"what is opened": func(w *Way) {
			w.open = func(k *Key, slab []byte, train []packet.Packet) {
				openPortable(k, slab, train)
				slab[train[0].Off] ^= 1
			}
		},
		"what is forged": func(w *Way) {
			w.open = func(k *Key, slab []byte, train []packet.Packet) {
				openPortable(k, slab, train)
				train[len(train)-1].Drop = 0
			}
		},
	} {
		w := *portable
		w.name = "wrong"
		spoil(&w)
		ways = append([]*Way{&w}, all...)
		if Best() == &w || slices.Contains(Ways(), &w) {
			t.Errorf("a way that gets %s wrong is offered", what)
		}
	}
}

// What a CPU can't run is in no list, isn't found by its name, and is never the best.
func TestWaysThatDontRun(t *testing.T) {
	all := ways
	defer func() { ways = all }()
	never := &Way{name: "never", runs: func() bool { return false }}
	ways = append([]*Way{never}, all...)
	if Best() == never || slices.Contains(Ways(), never) {
		t.Error("a way that doesn't run here is offered")
	}
	for _, name := range []string{"never", "", "XCRYPTO"} {
		w, err := Named(name)
		if w != nil || err == nil {
			t.Fatalf("Named(%q) = %v, %v", name, w, err)
		}
		for _, w := range Ways() {
			if !strings.Contains(err.Error(), w.String()) {
				t.Errorf("%q doesn't say that there is %v", err, w)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Best of nothing returned")
		}
	}()
	ways = []*Way{never}
	Best()
}
