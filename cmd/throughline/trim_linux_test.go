package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// What starting touched is given back, and the program goes on.
func TestStartupIsGivenBack(t *testing.T) {
	filePages := func() int {
		b, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.Fields(string(b))[2])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := filePages()
	giveBackStartup()
	if after := filePages(); after >= before {
		t.Errorf("%d pages of files before, %d after", before, after)
	}
}
