package mono

import (
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	a := Time(5 * time.Second)
	if b := a.Add(time.Second); b.Sub(a) != time.Second || a.Sub(b) != -time.Second {
		t.Errorf("%v after a second is %v", a, b)
	}
	if Never.Add(time.Hour) != Never {
		t.Error("Never came nearer")
	}
	if Never.Add(-time.Hour) != Never {
		t.Error("Never came nearer, from the other side")
	}
}
