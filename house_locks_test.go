package throughline_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The order of the engine's locks, as the comment at the top of internal/engine/engine.go declares it, held by a walk over
// the code of the engine and of all rooms below it: from each function of the engine through every function of ours that it
// names, with the locks that are held at each place. Calls through interfaces (the TUN, the network) aren't followed,
// nor what a goroutine does that is started while a lock is held: it holds none.

// maxHeld is how many locks may be held at once.
const maxHeld = 3

func TestLockOrder(t *testing.T) {
	src, err := os.ReadFile("internal/engine/engine.go")
	if err != nil {
		t.Fatal(err)
	}
	order, leaves := declaredLocks(string(src))
	if len(order) < 4 {
		t.Fatalf("the comment of internal/engine/engine.go declares the locks %v: the reading is broken", order)
	}
	w := newLockWalk(t, "internal/engine", order, leaves)
	for _, p := range w.problems {
		t.Error(p)
	}
	if w.deepest < 2 || len(w.met) < len(order) {
		t.Errorf("met %d kinds of locks, at most %d at once: the walk is broken", len(w.met), w.deepest)
	}
	for _, name := range order {
		if !w.met[name] {
			t.Errorf("the comment declares %s, which nothing takes", name)
		}
	}
}

// TestLockWalkSees holds that the walk finds what it is for, in a package of mistakes.
func TestLockWalkSees(t *testing.T) {
	const text = `package mistakes

import "sync"

type E struct{ a, b, c, d, leaf sync.Mutex; rw sync.RWMutex }

func (e *E) right() { e.a.Lock(); defer e.a.Unlock(); e.b.Lock(); e.takeC(); e.b.Unlock() }
func (e *E) takeC() { e.c.Lock(); e.c.Unlock() }
func (e *E) branches(x bool) { e.b.Lock(); if x { e.b.Unlock(); return }; e.b.Unlock(); e.a.Lock(); e.a.Unlock() }
func (e *E) started() { e.b.Lock(); go func() { e.a.Lock(); e.a.Unlock() }(); e.b.Unlock() }

func (e *E) disorder() { e.b.Lock(); e.takeA(); e.b.Unlock() }
func (e *E) takeA() { e.a.Lock(); e.a.Unlock() }
func (e *E) twice(f *E) { e.a.Lock(); f.a.Lock(); f.a.Unlock(); e.a.Unlock() }
func (e *E) four() { e.a.Lock(); e.b.Lock(); e.c.Lock(); e.takeD(); e.c.Unlock(); e.b.Unlock(); e.a.Unlock() }
func (e *E) takeD() { e.d.Lock(); e.d.Unlock() }
func (e *E) belowLeaf() { e.leaf.Lock(); e.rw.RLock(); e.rw.RUnlock(); e.leaf.Unlock() }
func (e *E) kept() { e.a.Lock() }
func (e *E) loose() { e.a.Unlock() }
func (e *E) passed() { e.c.Lock(); each(e.takeB); e.c.Unlock() }
func (e *E) takeB() { e.b.Lock(); e.b.Unlock() }
func each(f func()) { f() }
func (e *E) round() { for range 3 { e.a.Lock() } }
func (e *E) jumps() { for { e.a.Lock(); if e == nil { break }; e.a.Unlock() } }
func (e *E) goesOn() { for { e.a.Lock(); switch { case e == nil: continue }; e.a.Unlock() } }
func (e *E) maybe(x bool) { if x { e.c.Lock() }; e.takeB(); if x { e.c.Unlock() } }
`
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, "mistakes.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &lockWalk{set: set, bodies: map[*types.Func]*body{}, order: []string{"E.a", "E.b", "E.c", "E.d", "E.leaf"}, leaves: 1, met: map[string]bool{}, done: map[string]bool{}, said: map[string]bool{}}
	info := newInfo()
	if _, err := (&types.Config{Importer: importer.ForCompiler(set, "source", nil)}).Check("mistakes", set, []*ast.File{f}, info); err != nil {
		t.Fatal(err)
	}
	w.add([]*ast.File{f}, info)
	w.walkAll("mistakes")
	all := strings.Join(w.problems, "\n")
	for _, want := range []string{
		"takeA: takes E.a while it holds E.b", "twice: takes E.a while it holds E.a", "takeD: holds 4 locks",
		"belowLeaf: takes E.rw while it holds E.leaf", "kept: returns with E.a", "loose: gives back E.a", "takeB: takes E.b while it holds E.c",
		"round: goes round with", "jumps: jumps with", "goesOn: jumps with",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the walk doesn't see %q; it says:\n%s", want, all)
		}
	}
	for _, name := range []string{"right", "branches", "started", "takeC:"} {
		if strings.Contains(all, name) {
			t.Errorf("%s is right, and the walk says:\n%s", name, all)
		}
	}
}

// declaredLocks returns the locks that a package's comment lists, outermost first, and how many of the last are leaves:
// nothing is taken while one of them is held.
func declaredLocks(src string) (order []string, leaves int) {
	doc, _, _ := strings.Cut(src, "\npackage ")
	for _, m := range regexp.MustCompile(`(?m)^//\t([\w]+(?:\.\w+)+) {2,}\S`).FindAllStringSubmatch(doc, -1) {
		order = append(order, m[1])
	}
	counts := []string{"zero", "one", "two", "three", "four", "five", "six"}
	if m := regexp.MustCompile(`the last (\w+) are leaves`).FindStringSubmatch(strings.ReplaceAll(doc, "\n// ", " ")); m != nil {
		leaves = max(slices.Index(counts, m[1]), 0)
	}
	return order, leaves
}

// A body is a function of ours.
type body struct {
	decl *ast.FuncDecl
	info *types.Info
}

// A lockWalk walks.
type lockWalk struct {
	set      *token.FileSet
	bodies   map[*types.Func]*body
	order    []string
	leaves   int
	met      map[string]bool
	deepest  int
	done     map[string]bool // functions with what was held when they were called
	said     map[string]bool
	problems []string

	fn     string // the function that is walked
	info   *types.Info
	base   []string       // what its caller held
	entry  []string       // what was held where the innermost loop or switch begins
	around []string       // and where the innermost loop does
	defers map[string]int // locks that it gives back at its end
}

func newInfo() *types.Info {
	return &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}, Types: map[ast.Expr]types.TypeAndValue{}}
}

// newLockWalk reads a room and those of ours below it, with their types, and walks the room's functions.
func newLockWalk(t *testing.T, room string, order []string, leaves int) *lockWalk {
	t.Helper()
	list := exec.Command("go", "list", "-deps", "-export", "-f", "{{.ImportPath}}\t{{.Dir}}\t{{.Export}}\t{{join .GoFiles \" \"}}", "./"+room)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal("go list:", err)
	}
	w := &lockWalk{set: token.NewFileSet(), bodies: map[*types.Func]*body{}, order: order, leaves: leaves, met: map[string]bool{}, done: map[string]bool{}, said: map[string]bool{}}
	exports := map[string]string{}
	read := map[string]*types.Package{} // ours, from source, so that a function is one object everywhere
	compiled := importer.ForCompiler(w.set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	from := importerFunc(func(path string) (*types.Package, error) {
		if p := read[path]; p != nil {
			return p, nil
		}
		return compiled.Import(path)
	})
	for line := range strings.Lines(string(out)) { // those that are imported come first
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		exports[f[0]] = f[2]
		r, ours := roomOf(t, f[0])
		if !ours {
			continue
		}
		var files []*ast.File
		for name := range strings.FieldsSeq(f[3]) {
			file, err := parser.ParseFile(w.set, filepath.Join(f[1], name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		info := newInfo()
		pkg, err := (&types.Config{Importer: from}).Check(f[0], w.set, files, info)
		if err != nil {
			t.Fatal(err)
		}
		read[f[0]] = pkg
		w.add(files, info)
		if r == room {
			w.walkAll(f[0])
		}
	}
	return w
}

type importerFunc func(path string) (*types.Package, error)

func (f importerFunc) Import(path string) (*types.Package, error) { return f(path) }

func (w *lockWalk) add(files []*ast.File, info *types.Info) {
	for _, file := range files {
		for _, decl := range file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil {
				if obj, ok := info.Defs[fn.Name].(*types.Func); ok {
					w.bodies[obj] = &body{fn, info}
				}
			}
		}
	}
}

// walkAll walks the functions of a package, each as if it were called without a lock.
func (w *lockWalk) walkAll(path string) {
	var all []*types.Func
	for fn := range w.bodies {
		if fn.Pkg().Path() == path {
			all = append(all, fn)
		}
	}
	slices.SortFunc(all, func(a, b *types.Func) int { return int(a.Pos() - b.Pos()) })
	for _, fn := range all {
		w.call(fn, nil)
	}
}

func (w *lockWalk) report(pos token.Pos, format string, args ...any) {
	p := w.set.Position(pos)
	text := fmt.Sprintf("%s:%d: %s: %s", filepath.Base(p.Filename), p.Line, w.fn, fmt.Sprintf(format, args...))
	if !w.said[text] {
		w.said[text] = true
		w.problems = append(w.problems, text)
	}
}

// call walks a function that is called with locks held.
func (w *lockWalk) call(fn *types.Func, held []string) {
	b := w.bodies[fn]
	key := fn.FullName() + " " + fmt.Sprint(held)
	if b == nil || w.done[key] {
		return
	}
	w.done[key] = true
	outerName, outerInfo := w.fn, w.info
	w.fn, w.info = fn.Name(), b.info
	w.function(b.decl.Body, held)
	w.fn, w.info = outerName, outerInfo
}

// function walks a function's body, which must give back what it takes.
func (w *lockWalk) function(b *ast.BlockStmt, held []string) {
	base, entry, defers := w.base, w.entry, w.defers
	w.base, w.entry, w.defers = held, held, map[string]int{}
	if end, ends := w.block(b.List, held); ends {
		w.returns(b.Rbrace, end)
	}
	w.base, w.entry, w.defers = base, entry, defers
}

// returns looks at what is held where a function returns: what its caller held, and what it will still give back.
func (w *lockWalk) returns(pos token.Pos, held []string) {
	for i, name := range held {
		if (i >= len(w.base) || w.base[i] != name) && w.defers[name] == 0 {
			w.report(pos, "returns with %s held", name)
		}
	}
	if len(held) < len(w.base) {
		w.report(pos, "returns with %v held, where its caller held %v", held, w.base)
	}
}

// block walks statements in order. It returns what is held behind the last one, and whether that is reached.
func (w *lockWalk) block(list []ast.Stmt, held []string) (_ []string, reached bool) {
	reached = true
	for _, s := range list {
		if held, reached = w.stmt(s, held); !reached {
			break
		}
	}
	return held, reached
}

// branches walks alternatives, and joins what they hold: whatever one may hold.
func (w *lockWalk) branches(held []string, bodies ...[]ast.Stmt) ([]string, bool) {
	var joined []string
	reached := false
	for _, b := range bodies {
		if h, ok := w.block(b, held); ok {
			if len(h) > len(joined) || !reached {
				joined = h
			}
			reached = true
		}
	}
	return joined, reached
}

func (w *lockWalk) stmt(s ast.Stmt, held []string) (_ []string, reached bool) {
	switch s := s.(type) {
	case *ast.BlockStmt:
		return w.block(s.List, held)
	case *ast.LabeledStmt:
		return w.stmt(s.Stmt, held)
	case *ast.ReturnStmt:
		held = w.exprs(s, held)
		w.returns(s.Pos(), held)
		return held, false
	case *ast.BranchStmt: // break, continue, goto: what is held must be what the loop or the switch began with
		at := w.entry
		if s.Tok == token.CONTINUE {
			at = w.around
		}
		if s.Tok != token.FALLTHROUGH && !slices.Equal(held, at) {
			w.report(s.Pos(), "jumps with %v held, where %v was held at first", held, at)
		}
		return held, false
	case *ast.GoStmt:
		w.started(s.Call)
		return held, true
	case *ast.DeferStmt:
		if name, op := w.lockCall(s.Call); op == "Unlock" || op == "RUnlock" {
			w.defers[name]++
			return held, true
		}
		return w.exprs(s.Call, held), true
	case *ast.IfStmt:
		if s.Init != nil {
			held, _ = w.stmt(s.Init, held)
		}
		held = w.exprs(s.Cond, held)
		other := []ast.Stmt{}
		if s.Else != nil {
			other = append(other, s.Else)
		}
		return w.branches(held, s.Body.List, other)
	case *ast.ForStmt:
		if s.Init != nil {
			held, _ = w.stmt(s.Init, held)
		}
		if s.Cond != nil {
			held = w.exprs(s.Cond, held)
		}
		return w.loop(s.Body, held), true
	case *ast.RangeStmt:
		return w.loop(s.Body, w.exprs(s.X, held)), true
	case *ast.SwitchStmt:
		if s.Init != nil {
			held, _ = w.stmt(s.Init, held)
		}
		if s.Tag != nil {
			held = w.exprs(s.Tag, held)
		}
		return w.cases(s.Body, held)
	case *ast.TypeSwitchStmt:
		return w.cases(s.Body, held)
	case *ast.SelectStmt:
		return w.cases(s.Body, held)
	case *ast.ExprStmt:
		if call, ok := s.X.(*ast.CallExpr); ok {
			if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" {
				return held, false
			}
		}
	}
	return w.exprs(s, held), true
}

// loop walks a loop's body, which must hold at its end what it held at its beginning.
func (w *lockWalk) loop(b *ast.BlockStmt, held []string) []string {
	entry, around := w.entry, w.around
	w.entry, w.around = held, held
	if end, reached := w.block(b.List, held); reached && !slices.Equal(end, held) {
		w.report(b.Rbrace, "goes round with %v held, where %v was held at first", end, held)
	}
	w.entry, w.around = entry, around
	return held
}

// cases walks the clauses of a switch or select.
func (w *lockWalk) cases(b *ast.BlockStmt, held []string) ([]string, bool) {
	bodies := [][]ast.Stmt{nil} // none of them
	for _, c := range b.List {
		switch c := c.(type) {
		case *ast.CaseClause:
			for _, e := range c.List {
				held = w.exprs(e, held)
			}
			bodies = append(bodies, c.Body)
		case *ast.CommClause:
			list := c.Body
			if c.Comm != nil {
				list = append([]ast.Stmt{c.Comm}, list...)
			}
			bodies = append(bodies, list)
		}
	}
	entry := w.entry
	w.entry = held
	joined, reached := w.branches(held, bodies...)
	w.entry = entry
	return joined, reached
}

// exprs walks whatever is called or named in n, in the order of the text, and takes and gives back locks.
func (w *lockWalk) exprs(n ast.Node, held []string) []string {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit: // as if it were called here
			w.function(n.Body, held)
			return false
		case *ast.CallExpr:
			name, op := w.lockCall(n)
			switch op {
			case "Lock", "RLock", "TryLock", "TryRLock":
				held = w.take(n.Pos(), name, held)
				return false
			case "Unlock", "RUnlock":
				held = w.giveBack(n.Pos(), name, held)
				return false
			}
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" { // sync.WaitGroup.Go
				w.started(n)
				return false
			}
		case *ast.Ident:
			if fn, ok := w.info.Uses[n].(*types.Func); ok {
				w.call(fn.Origin(), held)
			}
		}
		return true
	})
	return held
}

// started walks a call in a goroutine of its own.
func (w *lockWalk) started(call *ast.CallExpr) {
	for _, e := range append([]ast.Expr{call.Fun}, call.Args...) {
		w.exprs(e, nil)
	}
}

func (w *lockWalk) take(pos token.Pos, name string, held []string) []string {
	w.met[name] = true
	rank := slices.Index(w.order, name)
	for _, h := range held {
		switch r := slices.Index(w.order, h); {
		case r < 0, rank >= 0 && r >= rank, r >= len(w.order)-w.leaves: // what isn't declared is a leaf
			w.report(pos, "takes %s while it holds %s", name, h)
		}
	}
	held = append(slices.Clip(held), name)
	w.deepest = max(w.deepest, len(held))
	if len(held) > maxHeld {
		w.report(pos, "holds %d locks: %v", len(held), held)
	}
	return held
}

func (w *lockWalk) giveBack(pos token.Pos, name string, held []string) []string {
	for i := len(held) - 1; i >= 0; i-- {
		if held[i] == name {
			return slices.Delete(slices.Clone(held), i, i+1)
		}
	}
	w.report(pos, "gives back %s, which it may not hold", name)
	return held
}

// lockCall returns which lock a call takes or gives back, and by which method; op is empty for any other call.
func (w *lockWalk) lockCall(call *ast.CallExpr) (name, op string) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	fn, ok := w.info.Uses[sel.Sel].(*types.Func)
	if !ok || fn.Pkg() == nil || fn.Pkg().Path() != "sync" {
		return "", ""
	}
	switch fn.Name() {
	case "Lock", "Unlock", "RLock", "RUnlock", "TryLock", "TryRLock":
	default:
		return "", ""
	}
	field, ok := sel.X.(*ast.SelectorExpr)
	if !ok {
		return types.ExprString(sel.X), fn.Name() // a variable
	}
	s := w.info.Selections[field]
	if s == nil {
		return types.ExprString(sel.X), fn.Name()
	}
	typ := s.Recv()
	for _, i := range s.Index()[:len(s.Index())-1] { // through embedded structs
		typ = deref(typ).Underlying().(*types.Struct).Field(i).Type()
	}
	return w.declared(deref(typ), field.Sel.Name), fn.Name()
}

func deref(t types.Type) types.Type {
	if p, ok := t.Underlying().(*types.Pointer); ok {
		return p.Elem()
	}
	return t
}

// declared returns the name of a type's lock as the order declares it, Type.field or package.Type.field or package.field, or
// else Type.field.
func (w *lockWalk) declared(t types.Type, field string) string {
	named, ok := t.(*types.Named)
	if !ok {
		return t.String() + "." + field
	}
	own := named.Obj().Name() + "." + field
	pkg := named.Obj().Pkg().Name()
	for _, name := range []string{pkg + "." + own, own, pkg + "." + field} {
		if slices.Contains(w.order, name) {
			return name
		}
	}
	return own
}
