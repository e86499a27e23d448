package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// renamed returns the new name of p, a module's path or a package's; ok says that it is one of ours.
func (t *tree) renamed(p string) (_ string, ok bool) {
	rest, ok := strings.CutPrefix(p, t.from)
	if !ok || rest != "" && rest[0] != '/' {
		return p, false
	}
	return t.to + rest, true
}

// goMod renames in a go.mod. A block of requirements stays sorted, as go mod tidy wants it.
func (t *tree) goMod(text []byte) ([]byte, int) {
	lines := strings.SplitAfter(string(text), "\n")
	count := 0
	for i, line := range lines {
		code, comment, commented := strings.Cut(line, "//")
		code = word.ReplaceAllStringFunc(code, func(w string) string {
			to, ok := t.renamed(w)
			if ok {
				count++
			}
			return to
		})
		if commented {
			code += "//" + comment
		}
		lines[i] = code
	}
	if count == 0 {
		return text, 0
	}
	for i, line := range lines {
		if strings.TrimSpace(line) != "require (" {
			continue
		}
		block := lines[i+1:]
		if n := slices.IndexFunc(block, func(l string) bool { return strings.TrimSpace(l) == ")" }); n >= 0 {
			block = block[:n]
		}
		if !slices.ContainsFunc(block, func(l string) bool {
			return strings.HasPrefix(strings.TrimSpace(l), "//") || strings.TrimSpace(l) == ""
		}) {
			slices.Sort(block)
		}
	}
	return []byte(strings.Join(lines, "")), count
}

// word is what may be a module's path in a line of a go.mod.
var word = regexp.MustCompile("[^\\s\"`()]+")

// An edit puts text in place of that from start to end.
type edit struct {
	start, end int
	text       string
}

// goFile renames in a Go file, and formats it again, for imports are sorted by path.
func (t *tree) goFile(name string, text []byte) ([]byte, int, error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, text, parser.ParseComments)
	if err != nil {
		return nil, 0, err
	}
	var edits []edit
	replace := func(n ast.Node, with string) {
		edits = append(edits, edit{set.Position(n.Pos()).Offset, set.Position(n.End()).Offset, with})
	}
	imports := map[*ast.BasicLit]bool{}
	for _, spec := range f.Imports {
		imports[spec.Path] = true
	}
	ast.Inspect(f, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		value, err := strconv.Unquote(lit.Value)
		if err != nil {
			return true
		}
		to, ours := t.renamed(value)
		if ours && (imports[lit] || t.isPackage(value)) {
			quote := lit.Value[:1]
			replace(lit, quote+to+quote)
		}
		return true
	})
	for _, group := range f.Comments {
		for _, c := range group.List {
			if to, n := t.prose(c.Text); n > 0 {
				replace(c, to)
			}
		}
	}
	if len(edits) == 0 {
		return text, 0, nil
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.start - b.start })
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		out.Write(text[at:e.start])
		out.WriteString(e.text)
		at = e.end
	}
	out.Write(text[at:])
	formatted, err := format.Source(out.Bytes())
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	return formatted, len(edits), nil
}

// isPackage reports whether a string in a Go file can't but be the path of a package of ours, or what such paths begin
// with. A module's path without a dot alone may be any word, such as the program's name.
func (t *tree) isPackage(value string) bool {
	rest := strings.TrimPrefix(value, t.from)
	if rest == "" {
		return strings.Contains(t.from, ".")
	}
	dir := strings.TrimSuffix(strings.TrimSuffix(rest[1:], "/..."), "/")
	return dir == "" || dir == "..." || t.packages[dir]
}

// document renames in a text that isn't Go: paths of packages, and the module's own where a command or an import names it.
func (t *tree) document(text []byte) ([]byte, int) {
	out, n := t.prose(string(text))
	return []byte(out), n
}

// command is what comes before a module's path on a line of its own kind.
var command = regexp.MustCompile(`(\bgo (get|install|doc|list|run)\b.*|^\s*import (\w+ )?"|^\s*//go:\w+.*|\bmodule )$`)

// prose renames in a text whatever is the path of a package of ours.
func (t *tree) prose(text string) (string, int) {
	var out strings.Builder
	count := 0
	for line := range strings.Lines(text) {
		at := 0
		for {
			i := strings.Index(line[at:], t.from)
			if i < 0 {
				break
			}
			i += at
			end := i + len(t.from)
			if begins(line[:i]) && t.ends(line[:i], line[end:]) {
				out.WriteString(line[at:i] + t.to)
				count++
			} else {
				out.WriteString(line[at:end])
			}
			at = end
		}
		out.WriteString(line[at:])
	}
	return out.String(), count
}

// begins reports whether a path may begin behind before.
func begins(before string) bool {
	if before == "" || strings.HasSuffix(before, "://") {
		return true
	}
	c := before[len(before)-1]
	return !inElement(c) && c != '/' && c != '.'
}

// ends reports whether the module's path, with before in front of it, is one as the line goes on with after.
func (t *tree) ends(before, after string) bool {
	dotted := strings.Contains(t.from, ".")
	switch {
	case len(after) > 1 && after[0] == '.' && inElement(after[1]): // a name in the package at the top
		return dotted
	case after == "" || after[0] != '/' && !inElement(after[0]):
		return dotted || command.MatchString(before)
	case after[0] != '/':
		return false
	}
	rest := after[1:]
	if strings.HasPrefix(rest, "...") {
		return true
	}
	n := 0
	for n < len(rest) && (rest[n] == '/' || inElement(rest[n])) {
		n++
	}
	return t.packages[strings.TrimRight(rest[:n], "/")]
}

// inElement reports whether c may be in an element of a path, but for the dot.
func inElement(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '~'
}
