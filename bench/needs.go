package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A tool is a program that the machine must have, and the Debian package that has it.
type tool struct{ name, pkg string }

// tools returns the tools that a plan needs.
func tools(p plan) []tool {
	need := []tool{{"ip", "iproute2"}, {"wg", "wireguard-tools"}, {"iperf3", "iperf3"}, {"ping", "iputils-ping"}, {"go", "golang"}}
	if slices.Contains(p.Beds, bedSegmenting) {
		need = append(need, tool{"ethtool", "ethtool"})
	}
	if p.Profile {
		need = append(need, tool{"perf", "linux-perf"})
	}
	return need
}

// needs returns an error, in one line, that says what the machine lacks.
func needs(p plan) error {
	var names, pkgs []string
	for _, t := range tools(p) {
		if _, err := exec.LookPath(t.name); err != nil {
			names, pkgs = append(names, t.name), append(pkgs, t.pkg)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("this machine has no %s: apt-get install %s (or what your system calls them)", strings.Join(names, ", "), strings.Join(pkgs, " "))
	}
	if os.Geteuid() != 0 {
		return errors.New(`making network namespaces needs root: sudo env "PATH=$PATH" go run . (as in README.md)`)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return errors.New("this machine has no /dev/net/tun: modprobe tun")
	}
	return nil
}
