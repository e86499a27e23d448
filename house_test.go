package throughline_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rules of the house, as ARCHITECTURE.md draws it, held by tests.

// floors lists every room from the top of the house to its cellar. A room may use rooms on lower floors only.
var floors = [][]string{
	{"cmd/throughline", "tools/rename"},
	{"cmd/throughline/internal/demo", "cmd/throughline/internal/output", "proxy/wireproxy"},
	{"netstack", "proxy"},
	{"proxy/internal/association"},
	{"proxy/internal/forward", "proxy/internal/login", "proxy/internal/socks5"},
	{"proxy/internal/relay", "proxy/internal/dial", "proxy/internal/datagram", "proxy/internal/names", "proxy/internal/places"},
	{"proxy/internal/idle"},
	{"netstack/internal/link", "netstack/internal/budget", "netstack/internal/deadline", "netstack/internal/dns", "internal/eyeballs"},
	{"conf", "uapi", "endpoint"},
	{"uapi/text"},
	{"."},
	{"internal/engine"},
	{"internal/peer", "internal/loadguard", "internal/receivers"},
	{"internal/session", "internal/timers", "internal/cookie", "internal/lane", "internal/wheel", "internal/workqueue", "internal/broadcast", "internal/staging", "internal/loglimit"},
	{"internal/noise", "internal/aead", "internal/replay", "internal/allowedips", "internal/index", "internal/ratelimit", "internal/grouping"},
	{"tun/tuntest", "udp/udptest"},
	{"tun", "udp"},
	{"tun/offload", "udp/internal/zone", "udp/internal/cmsg", "internal/rtnl"},
	{"wgtypes"},
	{"packet"},
	{"internal/wire", "internal/mono", "internal/ipheader", "internal/linux", "internal/promtext", "internal/secret"},
}

// pure are the rooms that take time, randomness and bytes as arguments.
var pure = []string{
	"internal/peer", "internal/session", "internal/timers", "internal/cookie", "internal/noise", "internal/aead",
	"internal/replay", "internal/allowedips", "internal/index", "internal/ratelimit", "internal/wire", "internal/mono",
	"internal/grouping", "internal/ipheader", "internal/secret", "packet", "tun/offload",
}

// A source is one Go file that isn't a test.
type source struct {
	path string // with slashes, from the top
	room string
	file *ast.File
	set  *token.FileSet
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, nested := os.Stat(filepath.Join(p, "go.mod"))
			if p != "." && (nested == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		p = filepath.ToSlash(p)
		all = append(all, source{path: p, room: path.Dir(p), file: f, set: set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d source files: the walk is broken", len(all))
	}
	return all
}

func TestArrowsPointDown(t *testing.T) {
	floor := map[string]int{}
	for i, rooms := range floors {
		for _, room := range rooms {
			floor[room] = i
		}
	}
	for _, s := range sources(t) {
		at, ok := floor[s.room]
		if !ok {
			t.Errorf("%s: the room %s stands on no floor", s.path, s.room)
			continue
		}
		for _, imp := range s.file.Imports {
			name, _ := strconv.Unquote(imp.Path.Value)
			if room, ours := roomOf(t, name); ours && floor[room] <= at {
				t.Errorf("%s: %s may not use %s, which is not below it", s.path, s.room, room)
			}
		}
	}
}

func TestPureRooms(t *testing.T) {
	forbidden := []string{"net", "os", "log", "log/slog", "time.Now", "syscall", "golang.org/x/sys/unix", "math/rand/v2"}
	for _, s := range sources(t) {
		if !slices.Contains(pure, s.room) {
			continue
		}
		for _, imp := range s.file.Imports {
			if name, _ := strconv.Unquote(imp.Path.Value); slices.Contains(forbidden, name) {
				t.Errorf("%s: %s takes what it needs as arguments: no %s", s.path, s.room, name)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine in %s", s.set.Position(n.Pos()), s.room)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && (n.Sel.Name == "Now" || n.Sel.Name == "Since" || n.Sel.Name == "Sleep") {
					t.Errorf("%s: a clock in %s", s.set.Position(n.Pos()), s.room)
				}
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "sync" && n.Sel.Name != "Pool" {
					t.Errorf("%s: a lock in %s", s.set.Position(n.Pos()), s.room)
				}
			}
			return true
		})
	}
}

// TestGoroutinesAreListed holds that ARCHITECTURE.md names the function and the file of every goroutine that is started.
func TestGoroutinesAreListed(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			starts := 0
			ast.Inspect(fn, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					starts++
				case *ast.CallExpr:
					if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" { // sync.WaitGroup.Go
						starts++
					}
				}
				return true
			})
			if starts == 0 {
				continue
			}
			found++
			want := fmt.Sprintf("| `%s` | `%s` |", s.path, fn.Name.Name)
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: %s starts a goroutine; ARCHITECTURE.md has no row %q", s.path, fn.Name.Name, want)
			}
		}
	}
	if rows := strings.Count(string(text), ".go` | `"); rows != found {
		t.Errorf("ARCHITECTURE.md lists %d functions that start goroutines; there are %d", rows, found)
	}
}

func TestEverythingIsDocumented(t *testing.T) {
	docs := map[string][]string{}
	for _, s := range sources(t) {
		docs[s.room] = append(docs[s.room], "")
		if s.file.Doc != nil {
			docs[s.room] = append(docs[s.room], s.path)
		}
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && receiverExported(d) {
					t.Errorf("%s: %s has no comment", s.set.Position(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && ts.Doc == nil && d.Doc == nil {
						t.Errorf("%s: %s has no comment", s.set.Position(ts.Pos()), ts.Name.Name)
					}
				}
			}
		}
	}
	for room, at := range docs {
		at = slices.DeleteFunc(at, func(p string) bool { return p == "" })
		if len(at) != 1 {
			t.Errorf("%s has %d package comments, at %v: it should have one", room, len(at), at)
		}
	}
}

func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	switch x := typ.(type) {
	case *ast.IndexExpr:
		typ = x.X
	case *ast.IndexListExpr:
		typ = x.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

// TestProxyKnowsNoWireGuard holds that the proxy compiles nothing of the tunnel: not the library, no reader of files, no stack.
func TestProxyKnowsNoWireGuard(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./proxy").Output()
	if err != nil {
		t.Fatal("go list:", err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for _, not := range []string{"throughline", "throughline/conf", "throughline/proxy/wireproxy", "throughline/netstack", "throughline/internal/wire"} {
			if dep == not {
				t.Errorf("proxy depends on %s", dep)
			}
		}
	}
}

// TestCoreImportsLittle holds that who imports the library compiles no user-space stack, no metrics and no command line.
func TestCoreImportsLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal("go list:", err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		allowed := false
		for _, ours := range []string{modulePath(t), "golang.org/x/crypto", "golang.org/x/sys", "github.com/gaissmai/bart"} {
			allowed = allowed || dep == ours || strings.HasPrefix(dep, ours+"/")
		}
		if !allowed {
			t.Errorf("the library depends on %s", dep)
		}
	}
}
