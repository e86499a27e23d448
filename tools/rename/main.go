// Rename gives this repository's modules another path: `go run ./tools/rename [-dry-run] PATH`, at the top of the tree.
//
// It changes go.mod files (module, require, replace, tool), import declarations, //go:linkname and //go:generate lines,
// strings in Go files that are a package's path, and the paths in comments, documents, scripts and workflows. The name of
// the program and of the root's package stays, so a path may end in another word: the code compiles, though goimports
// then writes the package's name before such an import.
//
// What is measured and recorded stays as it was: testdata, bench/results and bench/RESULTS.md. Nothing is written unless
// all of it could be read; the go.mod at the top, which says what the present path is, is written last.
//
// It is one goroutine, and holds all the text that changes in memory. Limits: a file above 1 MiB that isn't Go is left alone.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

const usage = `usage: go run ./tools/rename [-dry-run] PATH

Gives the module and those nested in it the module path PATH, such as example.org/net/throughline.
-dry-run tells what would change, by file, and changes nothing.
`

func main() {
	if err := run(".", os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "rename: %v\n", err)
		os.Exit(1)
	}
}

// run renames the tree at top.
func run(top string, args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("rename", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	dry := fs.Bool("dry-run", false, "")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, usage)
		return err
	case err != nil:
		return fmt.Errorf("%w; run it with -help for usage", err)
	case fs.NArg() != 1:
		return fmt.Errorf("want one module path, have %d; run it with -help for usage", fs.NArg())
	}
	to := fs.Arg(0)
	if why := wrong(to); why != "" {
		return fmt.Errorf("%q is no module path: %s", to, why)
	}
	t, err := readTree(top, to)
	if err != nil {
		return err
	}
	total := 0
	for _, c := range t.changes {
		fmt.Fprintf(stdout, "%s: %d\n", c.path, c.count)
		total += c.count
	}
	switch {
	case total == 0:
		fmt.Fprintln(stdout, "rename: nothing to change")
		return nil
	case !*dry:
		if err := t.write(); err != nil {
			return err
		}
	}
	would := ""
	if *dry {
		would = "would be "
	}
	fmt.Fprintf(stdout, "rename: %d places in %d files %srenamed from %s to %s\n", total, len(t.changes), would, t.from, to)
	if name := path.Base(to); t.name != "" && name != t.name {
		fmt.Fprintf(stdout, "rename: the package at the top is still called %s; goimports will write that before imports of %q\n", t.name, to)
	}
	return nil
}

// wrong says what is wrong with a module path that the go command is to fetch, "" if nothing is. The rules are those of
// https://go.dev/ref/mod#go-mod-file-ident.
func wrong(p string) string {
	elements := strings.Split(p, "/")
	for i, e := range elements {
		switch {
		case e == "":
			return "it has an empty element"
		case strings.HasPrefix(e, "."), strings.HasSuffix(e, "."):
			return fmt.Sprintf("%q begins or ends with a dot", e)
		case i == 0 && e[0] == '-':
			return "it begins with a dash"
		}
		for _, r := range e {
			lower := r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.'
			if i == 0 && !lower {
				return fmt.Sprintf("its first element is a host's name, without %q", r)
			}
			if !lower && !(r >= 'A' && r <= 'Z') && r != '_' && r != '~' {
				return fmt.Sprintf("%q may not be in it", r)
			}
		}
		short, _, _ := strings.Cut(e, ".")
		if slices.Contains(reserved, strings.ToLower(short)) {
			return fmt.Sprintf("Windows has no files called %q", e)
		}
		if tilde := strings.LastIndexByte(short, '~'); tilde >= 0 && tilde < len(short)-1 && strings.Trim(short[tilde+1:], "0123456789") == "" {
			return fmt.Sprintf("%q looks like a short name of Windows's", e)
		}
	}
	if !strings.Contains(elements[0], ".") {
		return fmt.Sprintf("its first element %q has no dot, so nothing can fetch it", elements[0])
	}
	last := elements[len(elements)-1]
	if len(elements) > 1 && len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789") == "" {
		return fmt.Sprintf("it ends with the major version %s, and no version 2 or later is tagged here", last)
	}
	return ""
}

// reserved are the names that Windows keeps for devices.
var reserved = []string{
	"con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9",
	"lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
}
