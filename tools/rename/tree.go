package main

import (
	"bytes"
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// A tree is what is to be renamed, and what comes of it.
type tree struct {
	top      string
	from, to string          // module paths
	name     string          // of the package at the top
	packages map[string]bool // directories with Go files or a go.mod, and those above them, with slashes, from the top
	changes  []change        // those of the go.mod at the top last
}

// A change is a file's new text.
type change struct {
	path  string // with slashes, from the top
	text  []byte
	count int // of the places that differ
}

// isRecord reports whether a file tells what was once measured, under the names of that day.
func isRecord(p string) bool {
	return p == "bench/RESULTS.md" || strings.HasPrefix(p, "bench/results/") || slices.Contains(strings.Split(p, "/"), "testdata")
}

// maxText bounds a file that may be text: a longer one isn't written by hand.
const maxText = 1 << 20

// readTree reads the tree and works out its changes.
func readTree(top, to string) (*tree, error) {
	t := &tree{top: top, to: to, packages: map[string]bool{}}
	mod, err := os.ReadFile(filepath.Join(top, "go.mod"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("there is no go.mod here: run it at the top of the repository")
	} else if err != nil {
		return nil, err
	}
	if t.from = modulePath(mod); t.from == "" {
		return nil, errors.New("go.mod names no module")
	}
	if t.from == to {
		return t, nil
	}
	files, err := t.list()
	if err != nil {
		return nil, err
	}
	for _, p := range files {
		text, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(p)))
		if err != nil {
			return nil, err
		}
		c := change{path: p}
		switch {
		case path.Base(p) == "go.mod":
			c.text, c.count = t.goMod(text)
		case strings.HasSuffix(p, ".go"):
			if c.text, c.count, err = t.goFile(p, text); err != nil {
				return nil, err
			}
		case len(text) <= maxText && utf8.Valid(text):
			c.text, c.count = t.document(text)
		}
		if c.count > 0 {
			t.changes = append(t.changes, c)
		}
	}
	if i := slices.IndexFunc(t.changes, func(c change) bool { return c.path == "go.mod" }); i >= 0 {
		last := t.changes[i]
		t.changes = append(slices.Delete(t.changes, i, i+1), last)
	}
	return t, nil
}

// list returns the files that may change, and fills in packages and name.
func (t *tree) list() (files []string, err error) {
	err = filepath.WalkDir(t.top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(t.top, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		base := d.Name()
		switch {
		case d.IsDir() && rel != "." && (base == ".git" || base == "vendor" || base == "node_modules"):
			return fs.SkipDir
		case !d.Type().IsRegular() || isRecord(rel) || base == "go.sum":
			return nil
		}
		files = append(files, rel)
		if !strings.HasSuffix(rel, ".go") && base != "go.mod" {
			return nil
		}
		for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
			t.packages[dir] = true
		}
		if t.name == "" && path.Dir(rel) == "." && strings.HasSuffix(rel, ".go") && !strings.HasSuffix(rel, "_test.go") {
			f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.PackageClauseOnly)
			if err != nil {
				return err
			}
			t.name = f.Name.Name
		}
		return nil
	})
	return files, err
}

// write writes the changes. A file keeps its permissions.
func (t *tree) write() error {
	for _, c := range t.changes {
		p := filepath.Join(t.top, filepath.FromSlash(c.path))
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(p, c.text, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// modulePath returns what the module line of a go.mod names.
func modulePath(text []byte) string {
	for line := range bytes.Lines(text) {
		if fields := strings.Fields(string(line)); len(fields) >= 2 && fields[0] == "module" {
			return strings.Trim(fields[1], "\"`")
		}
	}
	return ""
}
