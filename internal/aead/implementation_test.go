package aead

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"

	"throughline/packet"
)

// cpuSupports says for each implementation whether this CPU has the instructions it uses.
var cpuSupports = map[string]bool{
	"avx512": cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ &&
		cpu.X86.HasAVX512IFMA,
	"avx2":     cpu.X86.HasAVX2 && cpu.X86.HasBMI2,
	"xcrypto":  true,
	"portable": true,
}

// An implementation is usable exactly where the CPU supports it; the fastest comes first.
func TestImplementationsByCPU(t *testing.T) {
	want := []string{"xcrypto", "portable"}
	if runtime.GOARCH == "amd64" {
		want = append([]string{"avx512", "avx2"}, want...)
	}
	var names []string
	for _, im := range implementations {
		names = append(names, im.name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("the implementations for %s are %v, want %v", runtime.GOARCH, names, want)
	}
	usable := Implementations()
	for _, im := range implementations {
		supported, known := cpuSupports[im.name]
		if !known {
			t.Errorf("the tests don't know what %s needs", im)
		}
		if got := slices.Contains(usable, im); got != supported {
			t.Errorf("%s: usable %v, supported by the CPU %v", im, got, supported)
		}
	}
}

func TestImplementations(t *testing.T) {
	usable := Implementations()
	var names []string
	for _, im := range usable {
		names = append(names, im.String())
		if got, err := Named(im.String()); got != im || err != nil {
			t.Errorf("Named(%q) = %v, %v", im, got, err)
		}
	}
	t.Logf("this machine: %s", strings.Join(names, ", "))
	if Best() != usable[0] {
		t.Errorf("Best is %v, the first is %v", Best(), usable[0])
	}
	if !slices.Contains(usable, xcrypto) || usable[len(usable)-1] != portable {
		t.Errorf("%v: want xcrypto among them, and portable last", names)
	}
	if slices.Sort(names); len(slices.Compact(names)) != len(usable) {
		t.Errorf("two implementations of one name: %v", names)
	}
	usable[0] = nil
	if Implementations()[0] == nil {
		t.Error("changing the returned slice changes what Implementations returns")
	}
}

// An implementation whose results differ from the portable one's is not usable, whatever it gets wrong.
func TestImplementationsThatDisagree(t *testing.T) {
	all := implementations
	defer func() { implementations = all }()
	for what, corrupt := range map[string]func(im *Implementation){
		"a sealed bit": func(im *Implementation) {
			im.seal = func(k *Key, slab []byte, train []packet.Packet) {
				sealPortable(k, slab, train)
				slab[train[len(train)-1].Off+train[len(train)-1].Len-1] ^= 0x80
			}
		},
		"a length": func(im *Implementation) {
			im.seal = func(k *Key, slab []byte, train []packet.Packet) {
				sealPortable(k, slab, train)
				train[0].Len--
			}
		},
		"what is opened": func(im *Implementation) {
			im.open = func(k *Key, slab []byte, train []packet.Packet) {
				openPortable(k, slab, train)
				slab[train[0].Off] ^= 1
			}
		},
		"what is forged": func(im *Implementation) {
			im.open = func(k *Key, slab []byte, train []packet.Packet) {
				openPortable(k, slab, train)
				train[len(train)-1].Drop = 0
			}
		},
	} {
		wrong := *portable
		wrong.name = "wrong"
		corrupt(&wrong)
		implementations = append([]*Implementation{&wrong}, all...)
		if Best() == &wrong || slices.Contains(Implementations(), &wrong) {
			t.Errorf("an implementation that gets %s wrong is usable", what)
		}
	}
}

// What the CPU doesn't support isn't listed, isn't found by its name, and is never the best.
func TestImplementationsUnsupported(t *testing.T) {
	all := implementations
	defer func() { implementations = all }()
	never := &Implementation{name: "never", supported: func() bool { return false }}
	implementations = append([]*Implementation{never}, all...)
	if Best() == never || slices.Contains(Implementations(), never) {
		t.Error("an unsupported implementation is usable")
	}
	for _, name := range []string{"never", "", "XCRYPTO"} {
		im, err := Named(name)
		if im != nil || err == nil {
			t.Fatalf("Named(%q) = %v, %v", name, im, err)
		}
		for _, im := range Implementations() {
			if !strings.Contains(err.Error(), im.String()) {
				t.Errorf("%q doesn't list %v", err, im)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Best didn't panic without any usable implementation")
		}
	}()
	implementations = []*Implementation{never}
	Best()
}
