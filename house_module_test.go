package throughline_test

import (
	"os"
	"strings"
	"testing"
)

// modulePath returns what go.mod calls this module, for tools/rename may have given it another path.
func modulePath(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	name, ok := strings.CutPrefix(strings.TrimSpace(first), "module ")
	if !ok {
		t.Fatalf("go.mod begins with %q", first)
	}
	return name
}

// roomOf returns the room of an import path; ours says that it is one of this module.
func roomOf(t *testing.T, importPath string) (room string, ours bool) {
	rest, ours := strings.CutPrefix(importPath, modulePath(t))
	switch {
	case ours && rest == "":
		return ".", true
	case ours && rest[0] == '/':
		return rest[1:], true
	}
	return "", false
}
