package conf

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestMistakesList(t *testing.T) {
	var m Mistakes
	m.Add(nil)
	if err := m.Err(); err != nil {
		t.Errorf("none: %v", err)
	}
	first := errors.New("mistake 0")
	m.Add(first)
	if err := m.Err(); err != first {
		t.Errorf("one: %v", err)
	}
	for i := 1; i < 20; i++ {
		m.Add(fmt.Errorf("mistake %d", i))
	}
	if lines := strings.Split(m.Err().Error(), "\n"); len(lines) != 20 || lines[19] != "mistake 19" {
		t.Errorf("twenty: %q", lines)
	}
	m.Add(errors.New("too many"))
	m.Add(errors.New("too many"))
	for range 2 { // asking changes nothing
		if lines := strings.Split(m.Err().Error(), "\n"); len(lines) != 21 || lines[20] != "and 2 more mistakes" || !errors.Is(m.Err(), first) {
			t.Errorf("22: %q", lines)
		}
	}
}
