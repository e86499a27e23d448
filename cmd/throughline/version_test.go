package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	const revision = "b8ad54e0123456789abcdef0123456789abcdef0"
	for _, c := range []struct{ main, revision, modified, want string }{
		{"v1.2.3", "", "", "v1.2.3"}, // go install module@v1.2.3
		{"v0.0.0-20261127235626-b8ad54e01234", "", "", "v0.0.0-20261127235626-b8ad54e01234"}, // go install module@branch
		{"v1.2.3", revision, "false", "v1.2.3"},                                              // go build at a tag
		{"v1.2.3+dirty", revision, "true", "devel+b8ad54e01234-modified"},                    // and with changes
		{"v1.2.4-0.20261127235626-b8ad54e01234", revision, "false", "devel+b8ad54e01234"},    // go build elsewhere
		{"v1.2.4-0.20261127235626-b8ad54e01234+dirty", revision, "true", "devel+b8ad54e01234-modified"},
		{"(devel)", revision, "false", "devel+b8ad54e01234"}, // as Go 1.23 has it
		{"(devel)", "", "", "devel"},                         // go build -buildvcs=false
		{"", "", "", "devel"},                                // go test
	} {
		info := &debug.BuildInfo{Main: debug.Module{Version: c.main}}
		if c.revision != "" {
			info.Settings = []debug.BuildSetting{{Key: "vcs.revision", Value: c.revision}, {Key: "vcs.modified", Value: c.modified}}
		}
		if got := versionOf(info); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestVersionOfACheckout builds the program in a new checkout: at a tag, at a commit after it, and with a change.
func TestVersionOfACheckout(t *testing.T) {
	if testing.Short() {
		t.Skip("this test builds programs")
	}
	dir := t.TempDir()
	source, err := os.ReadFile("version.go")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	do := func(words ...string) string {
		t.Helper()
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GOFLAGS=-mod=mod", "GOWORK=off",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", words, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git isn't installed")
	}
	write("go.mod", "module example.com/program\n\ngo 1.26\n")
	write(".gitignore", "/program\n")
	write("version.go", string(source))
	write("main.go", "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(version()) }\n")
	built := func() string {
		t.Helper()
		do("go", "build", "-buildvcs=true", "-o", "program", ".")
		return do("./program")
	}
	commit := func(what string) {
		t.Helper()
		do("git", "add", ".")
		do("git", "commit", "-q", "-m", what)
	}
	do("git", "init", "-q")
	commit("first")
	do("git", "tag", "v1.2.3")
	if got := built(); got != "v1.2.3" {
		t.Errorf("at a tag: %s", got)
	}
	write("more.go", "package main\n")
	commit("second")
	revision := do("git", "rev-parse", "HEAD")[:12]
	if got := built(); got != "devel+"+revision {
		t.Errorf("after a tag: %s, want devel+%s", got, revision)
	}
	write("more.go", "package main\n\n// A change.\n")
	if got := built(); got != "devel+"+revision+"-modified" {
		t.Errorf("with a change: %s", got)
	}
}
