package linux

import "testing"

func TestRunning(t *testing.T) {
	if v := Running(); v == (Version{}) {
		t.Error("this kernel has no version")
	}
}
