package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A program is a userspace WireGuard to measure. It is started as `Path -f INTERFACE`.
type program struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Version string `json:"version,omitempty"` // of its module, if the executable has it
	Go      string `json:"go,omitempty"`      // the version of Go that compiled it, if the executable has it
}

// oursName is the name of this repository's program.
const oursName = "throughline"

// peers are the known programs to compare with. Ratios in the plot are to the first.
var peers = []struct{ name, module, version, executable string }{
	{"wireguard-go", "golang.zx2c4.com/wireguard", "latest", "wireguard"},
	{"tailscale", "github.com/tailscale/wireguard-go", "v0.0.0-20260928213032-417aef361226", "wireguard-go"},
}

func peerNames() []string {
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	return names
}

func peerSource(name string) string {
	for _, p := range peers {
		if p.name == name {
			return p.module + "@" + p.version
		}
	}
	return ""
}

func parsePeers(s string) ([]string, error) {
	if s == "" || s == "none" {
		return nil, nil
	}
	names := strings.Split(s, ",")
	for _, name := range names {
		if peerSource(name) == "" {
			return nil, fmt.Errorf("-peers: unknown program %q; use %s, or none", name, strings.Join(peerNames(), ","))
		}
	}
	return names, nil
}

func parseProgram(s string) (program, error) {
	name, path, ok := strings.Cut(s, "=")
	if !ok || name == "" || path == "" || strings.ContainsAny(name, " |\t\n") {
		return program{}, fmt.Errorf("%q is not name=/path", s)
	}
	path, err := filepath.Abs(path)
	return program{Name: name, Path: path}, err
}

// gather builds the program of the repository at top, unless one of the extra programs replaces it, installs the peers, and
// returns all: ours first, then the peers, then the others.
func gather(ctx context.Context, top string, peerNames []string, extra []program, progress io.Writer) ([]program, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	cache = filepath.Join(cache, "throughline-bench")
	at := slices.IndexFunc(extra, func(p program) bool { return p.Name == oursName })
	ours := program{Name: oursName, Path: filepath.Join(cache, oursName)}
	if at >= 0 {
		ours = extra[at]
		extra = slices.Delete(slices.Clone(extra), at, at+1)
	} else {
		fmt.Fprintf(progress, "bench: building %s\n", oursName)
		if err := build(ctx, top, ours.Path); err != nil {
			return nil, err
		}
	}
	all := []program{ours}
	for _, p := range peers {
		if !slices.Contains(peerNames, p.name) {
			continue
		}
		fmt.Fprintf(progress, "bench: installing %s\n", p.name)
		bin := filepath.Join(cache, p.name)
		path := filepath.Join(bin, p.executable)
		if err := install(ctx, bin, p.module+"@"+p.version); err != nil {
			if _, e := os.Stat(path); e != nil || ctx.Err() != nil {
				return nil, err
			}
			fmt.Fprintf(progress, "bench: using the %s that was installed before: %s\n", p.name, oneLine(err))
		}
		all = append(all, program{Name: p.name, Path: path})
	}
	all = append(all, extra...)
	for i := range all {
		if err := all[i].identify(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// build builds the program of the repository at top.
func build(ctx context.Context, top, to string) error {
	if _, err := os.Stat(filepath.Join(top, "cmd/throughline/main.go")); err != nil {
		return errors.New("the current folder isn't bench in the repository; cd there")
	}
	// Without -buildvcs=false, go build fails for root in another user's repository. The function commit asks git instead.
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", to, "./cmd/throughline")
	cmd.Dir = top
	return runQuietly(cmd)
}

// install installs a version of a module's program into the folder bin.
func install(ctx context.Context, bin, what string) error {
	cmd := exec.CommandContext(ctx, "go", "install", what)
	cmd.Env = append(os.Environ(), "GOBIN="+bin)
	return runQuietly(cmd)
}

// runQuietly runs a command and shows its output only in the error.
func runQuietly(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// identify reads the versions from the executable. One that wasn't built by Go has none.
func (p *program) identify() error {
	st, err := os.Stat(p.Path)
	if err != nil {
		return err
	}
	if st.IsDir() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not executable", p.Path)
	}
	if info, err := buildinfo.ReadFile(p.Path); err == nil {
		p.Go = info.GoVersion
		if v := info.Main.Version; v != "(devel)" {
			p.Version = v
		}
	}
	return nil
}

// commit returns the commit of the repository at top, and whether there are uncommitted changes.
func commit(top string) string {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", top}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	id, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "unknown"
	}
	if changes, err := git("status", "--porcelain", "--untracked-files=no"); err != nil || changes != "" {
		id += " with changes"
	}
	return id
}
