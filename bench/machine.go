package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// A machine is what the figures depend on beside the programs.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Load   string `json:"load"` // the load average before the start, over 1, 5 and 15 minutes
}

// thisMachine describes the machine that this runs on.
func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
	text, _ := os.ReadFile("/proc/cpuinfo")
	m.CPU = cpuModel(string(text))
	text, _ = os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(text))
	text, _ = os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(text)); len(f) >= 3 {
		m.Load = strings.Join(f[:3], " ")
	}
	return m
}

// cpuModel returns the processor's name and those of its vector extensions that ciphers use.
func cpuModel(cpuinfo string) string {
	model := runtime.GOARCH
	var vectors []string
	for lines := bufio.NewScanner(strings.NewReader(cpuinfo)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			model = value
		case "flags", "Features":
			flags := strings.Fields(value)
			for _, f := range []string{"avx2", "avx512f", "asimd", "sve"} {
				if slices.Contains(flags, f) && !slices.Contains(vectors, f) {
					vectors = append(vectors, f)
				}
			}
		}
	}
	if len(vectors) == 0 {
		return model
	}
	return fmt.Sprintf("%s (%s)", model, strings.Join(vectors, ", "))
}
