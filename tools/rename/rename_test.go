package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// small is a tree with every kind of place that a path stands in. Its module is called old, its program too.
var small = map[string]string{
	"go.mod":       "module old\n\ngo 1.26\n\nrequire golang.org/x/sys v0.1.0 // old\n",
	"old.go":       "// Package old joins an [old/tun.Device] to sockets; old/nowhere is no package.\npackage old\n\nimport \"old/tun\"\n\nvar _ tun.Device\n",
	"tun/tun.go":   "package tun\n\nimport (\n\t_ \"net\"\n\t_ \"unsafe\"\n\n\t_ \"golang.org/x/sys/cpu\"\n\tx \"old/wire\"\n\t_ \"zebra.org/x\"\n)\n\n//go:linkname now old/wire.now\nfunc now() int64\n\n//go:generate go run old/cmd/old -x\n\ntype Device = x.Device\n",
	"wire/wire.go": "package wire\n\ntype Device int\n\nconst (\n\tprogram = \"old\"\n\tprefix  = \"old/\"\n\tpkg     = `old/tun`\n\tall     = \"old/tun/...\"\n\tsocket  = \"/var/run/old/x\"\n\tsymbol  = \"u:old/tun.F\"\n\tno      = \"old/nowhere\"\n)\n",
	"cmd/old/m.go": "// Old is the program: cmd/old, by the package old.\npackage main\n\nimport \"old\"\n\nfunc main() { println(old.X) }\n",
	"nested/go.mod": "module old/nested\n\ngo 1.26\n\nrequire (\n\tgolang.org/x/sys v0.1.0\n\told v0.0.0\n\tzebra.org/x v1.0.0\n)\n\n" +
		"require old/tun v0.0.0 // indirect\n\nreplace old => ../\n\nreplace old/tun => ../tun\n\ntool old/cmd/old\n",
	"nested/n.go":            "package nested\n\nimport _ \"old\"\n",
	"README.md":              "# Old\n\nThe old program: cmd/old.\n\n    go install old/cmd/old@latest\n    go get old\n    import \"old\"\n    go run ./cmd/old\n\nSee old/tun, ../old/tun and https://x.org/old/tun; old/nowhere isn't there.\n",
	".ci/run":                "go list old/... | grep -v old/nested\n./old\n",
	"bench/RESULTS.md":       "old/tun.F 30 %\n",
	"tun/testdata/trace.txt": "old/tun.F\n",
	"go.sum":                 "old v0.0.0 h1:x=\n",
	"picture.png":            "\xff\xd8 old/tun",
}

var renamedSmall = map[string]string{
	"go.mod":       "module example.org/x/new\n\ngo 1.26\n\nrequire golang.org/x/sys v0.1.0 // old\n",
	"old.go":       "// Package old joins an [example.org/x/new/tun.Device] to sockets; old/nowhere is no package.\npackage old\n\nimport \"example.org/x/new/tun\"\n\nvar _ tun.Device\n",
	"tun/tun.go":   "package tun\n\nimport (\n\t_ \"net\"\n\t_ \"unsafe\"\n\n\tx \"example.org/x/new/wire\"\n\t_ \"golang.org/x/sys/cpu\"\n\t_ \"zebra.org/x\"\n)\n\n//go:linkname now example.org/x/new/wire.now\nfunc now() int64\n\n//go:generate go run example.org/x/new/cmd/old -x\n\ntype Device = x.Device\n",
	"wire/wire.go": "package wire\n\ntype Device int\n\nconst (\n\tprogram = \"old\"\n\tprefix  = \"example.org/x/new/\"\n\tpkg     = `example.org/x/new/tun`\n\tall     = \"example.org/x/new/tun/...\"\n\tsocket  = \"/var/run/old/x\"\n\tsymbol  = \"u:old/tun.F\"\n\tno      = \"old/nowhere\"\n)\n",
	"cmd/old/m.go": "// Old is the program: cmd/old, by the package old.\npackage main\n\nimport \"example.org/x/new\"\n\nfunc main() { println(old.X) }\n",
	"nested/go.mod": "module example.org/x/new/nested\n\ngo 1.26\n\nrequire (\n\texample.org/x/new v0.0.0\n\tgolang.org/x/sys v0.1.0\n\tzebra.org/x v1.0.0\n)\n\n" +
		"require example.org/x/new/tun v0.0.0 // indirect\n\nreplace example.org/x/new => ../\n\nreplace example.org/x/new/tun => ../tun\n\ntool example.org/x/new/cmd/old\n",
	"nested/n.go": "package nested\n\nimport _ \"example.org/x/new\"\n",
	"README.md":   "# Old\n\nThe old program: cmd/old.\n\n    go install example.org/x/new/cmd/old@latest\n    go get example.org/x/new\n    import \"example.org/x/new\"\n    go run ./cmd/old\n\nSee example.org/x/new/tun, ../old/tun and https://x.org/old/tun; old/nowhere isn't there.\n",
	".ci/run":     "go list example.org/x/new/... | grep -v example.org/x/new/nested\n./old\n",
}

func grow(t *testing.T, files map[string]string) string {
	t.Helper()
	top := t.TempDir()
	for p, text := range files {
		p = filepath.Join(top, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return top
}

func same(t *testing.T, top string, want map[string]string) {
	t.Helper()
	for p, text := range want {
		got, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(p)))
		if err != nil {
			t.Error(err)
		} else if string(got) != text {
			t.Errorf("%s is now\n%s\nwant\n%s", p, got, text)
		}
	}
}

func rename(t *testing.T, top string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(top, args, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// after is small with what became of it.
func after(changed map[string]string) map[string]string {
	all := maps.Clone(small)
	maps.Copy(all, changed)
	return all
}

func TestRename(t *testing.T) {
	top := grow(t, small)
	if err := os.Chmod(filepath.Join(top, ".ci/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := rename(t, top, "-dry-run", "example.org/x/new")
	same(t, top, small)
	for _, want := range []string{"README.md: 4\n", "nested/go.mod: 6\n", "tun/tun.go: 3\n", ".ci/run: 2\n", "would be renamed from old to example.org/x/new\n", "still called old"} {
		if !strings.Contains(out, want) {
			t.Errorf("-dry-run says\n%s\nwithout %q", out, want)
		}
	}
	did := rename(t, top, "example.org/x/new")
	if want := strings.Replace(out, " would be ", " ", 1); did != want {
		t.Errorf("it says\n%s\nand with -dry-run\n%s", did, out)
	}
	if lines := strings.Split(did, "\n"); !slices.Contains(lines, "go.mod: 1") || lines[len(renamedSmall)-1] != "go.mod: 1" {
		t.Errorf("the go.mod at the top isn't the last of the files:\n%s", did)
	}
	same(t, top, after(renamedSmall))
	if info, err := os.Stat(filepath.Join(top, ".ci/run")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the script lost its permissions: %v, %v", info.Mode(), err)
	}

	if out := rename(t, top, "example.org/x/new"); out != "rename: nothing to change\n" {
		t.Errorf("the second time it says %q", out)
	}
	same(t, top, after(renamedSmall))
}

// TestRenameAgain starts from a path with a dot, once to one that begins with it.
func TestRenameAgain(t *testing.T) {
	top := grow(t, small)
	rename(t, top, "example.org/x/new")
	for _, to := range []string{"example.org/x/new/er", "github.com/somebody/old"} {
		rename(t, top, to)
		want := map[string]string{}
		for p, text := range renamedSmall {
			want[p] = strings.ReplaceAll(text, "example.org/x/new", to)
		}
		// By its path the requirement stands elsewhere in the block.
		if to > "golang.org" && to < "zebra.org" {
			want["nested/go.mod"] = strings.Replace(want["nested/go.mod"], "\tgolang.org/x/sys v0.1.0\n", "", 1)
			want["nested/go.mod"] = strings.Replace(want["nested/go.mod"], "require (\n", "require (\n\tgolang.org/x/sys v0.1.0\n", 1)
		}
		same(t, top, after(want))
	}
}

func TestRefusals(t *testing.T) {
	for want, args := range map[string][]string{
		"want one module path, have 0":   {},
		"want one module path, have 2":   {"example.org/a", "example.org/b"},
		"flag provided but not defined":  {"-x"},
		"has no dot":                     {"throughline"},
		"an empty element":               {"example.org//x"},
		"empty element":                  {"example.org/x/"},
		"begins or ends with a dot":      {"example.org/.x"},
		"begins with a dash":             {"--", "-.example.org/x"},
		"a host's name, without 'E'":     {"Example.org/x"},
		"' ' may not be in it":           {"example.org/a b"},
		"'@' may not be in it":           {"example.org/x@v1"},
		"'ü' may not be in it":           {"example.org/ü"},
		"Windows has no files called":    {"example.org/nul.x"},
		"looks like a short name":        {"example.org/progra~1"},
		"ends with the major version v2": {"example.org/x/v2"},
		"a host's name, without ':'":     {"https://example.org/x"},
	} {
		top := grow(t, small)
		var out bytes.Buffer
		err := run(top, args, &out)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || out.Len() > 0 {
			t.Errorf("%q: %v, and %q; want an error with %q", args, err, &out, want)
		}
		same(t, top, small)
	}
	if err := run(t.TempDir(), []string{"example.org/x"}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "no go.mod here") {
		t.Errorf("in an empty directory: %v", err)
	}
}

// TestNothingOrAll: a file that can't be read changes nothing.
func TestNothingOrAll(t *testing.T) {
	files := after(map[string]string{"z/z.go": "package z\n\nimport \"old/tun\n"})
	top := grow(t, files)
	if err := run(top, []string{"example.org/x"}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "z.go") {
		t.Errorf("a file that is no Go: %v", err)
	}
	same(t, top, files)
}

func TestPaths(t *testing.T) {
	for _, p := range []string{"example.org", "example.org/x", "github.com/A_b/c.d~e", "example.org/x/v", "gopkg.example/1"} {
		if why := wrong(p); why != "" {
			t.Errorf("%s: %s", p, why)
		}
	}
}
