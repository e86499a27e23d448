package peer

import (
	"testing"

	"pgregory.net/rapid"

	"throughline/internal/wire"
)

// Staged packets behave as a list that forgets its oldest.
func TestStagedIsAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Staged
		var model []string
		for range rapid.IntRange(0, 400).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			default:
				p := rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "packet")
				dropped := s.Push(p)
				want := string(p)
				clear(p) // it must have been copied
				model = append(model, want)
				if full := len(model) > wire.MaxStaged; dropped != full {
					t.Fatalf("the oldest gave way: %v, with %d waiting", dropped, len(model)-1)
				} else if full {
					model = model[1:]
				}
			case 0:
				n := rapid.IntRange(0, len(model)).Draw(t, "n")
				s.Pop(n)
				model = model[n:]
			case 1:
				if n := s.Clear(); n != len(model) {
					t.Fatalf("Clear forgot %d of %d", n, len(model))
				}
				model = nil
			}
			if s.Len() != len(model) {
				t.Fatalf("%d wait, want %d", s.Len(), len(model))
			}
			for i, want := range model {
				if string(s.At(i)) != want {
					t.Fatalf("packet %d of %d differs", i, len(model))
				}
			}
		}
	})
}

func TestStagedGivesMemoryBack(t *testing.T) {
	var s Staged
	for range 10 {
		s.Push(make([]byte, 100))
	}
	s.Pop(10)
	if s.packets != nil {
		t.Error("an empty list holds memory")
	}
}
