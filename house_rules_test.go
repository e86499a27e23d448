package throughline_test

import (
	"cmp"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unsafeRooms are the rooms that may do what the compiler and the runtime don't watch, each with its reason: import
// unsafe, make raw system calls, take functions by go:linkname, or be written in assembly.
var unsafeRooms = map[string]string{
	".":             "clock_linux.go: one clock read for each batch, which the runtime needn't be told of",
	"internal/aead": "assembly, written by gen/",
	"tun":           "reads and writes that never wait, into and from slabs",
	"tun/offload":   "assembly: the sum of a checksum",
	"udp":           "messages that never wait, with pointers into slabs",
}

// TestUnsafeIsListed holds that nothing but unsafeRooms is unsafe, and that each of those still is.
func TestUnsafeIsListed(t *testing.T) {
	found := map[string]bool{}
	use := func(room, where, what string) {
		found[room] = true
		if unsafeRooms[room] == "" {
			t.Errorf("%s: %s in %s, which isn't among unsafeRooms", where, what, room)
		}
	}
	raw := regexp.MustCompile(`^(Raw)?Syscall(6|9|N|NoError)?$`)
	for _, s := range sources(t) {
		system := map[string]bool{} // names by which the file calls packages of system calls
		for _, imp := range s.file.Imports {
			name, _ := strconv.Unquote(imp.Path.Value)
			as := path.Base(name)
			if imp.Name != nil {
				as = imp.Name.Name
			}
			switch name {
			case "unsafe", "C":
				use(s.room, s.path, name)
			case "syscall", "golang.org/x/sys/unix", "golang.org/x/sys/windows":
				system[as] = true
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && system[x.Name] && raw.MatchString(sel.Sel.Name) {
					use(s.room, s.set.Position(n.Pos()).String(), x.Name+"."+sel.Sel.Name)
				}
			}
			return true
		})
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//go:linkname ") {
					use(s.room, s.set.Position(c.Pos()).String(), "go:linkname")
				}
			}
		}
		assembly, err := filepath.Glob(filepath.Join(filepath.FromSlash(s.room), "*.s"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range assembly {
			use(s.room, p, "assembly")
		}
	}
	for room := range unsafeRooms {
		if !found[room] {
			t.Errorf("unsafeRooms lists %s, where nothing is unsafe: take it off", room)
		}
	}
}

// TestValuesAreDocumented holds that every exported constant and variable has a comment: its own, before it or behind
// it, or its group's.
func TestValuesAreDocumented(t *testing.T) {
	seen := 0
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.CONST && d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				for _, name := range v.Names {
					if !name.IsExported() {
						continue
					}
					seen++
					if d.Doc == nil && v.Doc == nil && v.Comment == nil {
						t.Errorf("%s: %s has no comment", s.set.Position(name.Pos()), name.Name)
					}
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("saw %d exported values: the walk is broken", seen)
	}
}

// isPublic reports whether programs outside this module can import a room.
func isPublic(room string) bool {
	return !slices.Contains(strings.Split(room, "/"), "internal") && !strings.HasPrefix(room, "cmd/") && !strings.HasPrefix(room, "tools/")
}

// bareFields are exported fields of public rooms that have no comment yet. The list must shrink: what has one, or is gone,
// is taken off.
var bareFields = []string{"Config.Sections", "Config.Stdout", "Section.Entries", "Section.KeyFile", "Section.Password"}

// TestFieldsAreDocumented holds that every exported field of an exported struct of a public room has a comment, unless
// the struct's own tells of it by name, or by its type's, which say all that there is to say of it.
func TestFieldsAreDocumented(t *testing.T) {
	seen := 0
	bare := map[string]bool{}
	for _, s := range sources(t) {
		if !isPublic(s.room) {
			continue
		}
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range d.Specs {
				ts, ok := spec.(*ast.TypeSpec)
				if !ok || !ts.Name.IsExported() {
					continue
				}
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					continue
				}
				whole := d.Doc.Text() + ts.Doc.Text()
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						if !name.IsExported() {
							continue
						}
						seen++
						if f.Doc != nil || f.Comment != nil || slices.Contains(words(whole), name.Name) {
							continue
						}
						if typ, ok := f.Type.(*ast.Ident); ok && typ.Name == name.Name { // PublicKey PublicKey
							continue
						}
						full := ts.Name.Name + "." + name.Name
						if bare[full] = true; !slices.Contains(bareFields, full) {
							t.Errorf("%s: %s has no comment", s.set.Position(name.Pos()), full)
						}
					}
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("saw %d exported fields: the walk is broken", seen)
	}
	for _, full := range bareFields {
		if !bare[full] {
			t.Errorf("%s has a comment, or is gone: take it off bareFields", full)
		}
	}
}

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_')
	})
}

// What a room's package comment must speak of: which goroutines may use it, and where it ends.
var (
	ofConcurrency = regexp.MustCompile(`(?i)\b(concurren\w+|goroutines?|locks?|shared?|callers?)\b`)
	ofLimits      = regexp.MustCompile(`(?i)\b(limits?|bound(ed|s)?|at most|no more than|only the first)\b`)
)

// constants are rooms without anything to call, of which there is nothing to say there.
var constants = []string{"internal/wire"}

// TestPackageCommentsSayWhoMayCall holds that package comments speak of concurrency and limits.
func TestPackageCommentsSayWhoMayCall(t *testing.T) {
	for _, s := range sources(t) {
		if s.file.Doc == nil || slices.Contains(constants, s.room) {
			continue
		}
		text := s.file.Doc.Text()
		if !ofConcurrency.MatchString(text) {
			t.Errorf("%s: the package comment of %s doesn't say which goroutines may use it", s.path, s.room)
		}
		if !ofLimits.MatchString(text) {
			t.Errorf("%s: the package comment of %s names no limit", s.path, s.room)
		}
	}
}

// How many lines a person reads in one sitting, and how many still hold one noun. Tests and generated code don't count.
const (
	maxFileLines = 450
	maxRoomLines = 1600 // about 1,500
)

// largerRooms are rooms that may have more lines than maxRoomLines.
var largerRooms = map[string]int{"internal/engine": 2000}

// TestSizes holds the size of files, in the modules below this one too, and that of this module's rooms.
func TestSizes(t *testing.T) {
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	ours := map[string]bool{} // files of this module
	for _, s := range sources(t) {
		ours[s.path] = true
	}
	rooms := map[string]int{}
	seen := 0
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "vendor") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		seen++
		p = filepath.ToSlash(p)
		n := strings.Count(string(text), "\n")
		if n > maxFileLines && !generated.Match(text) {
			t.Errorf("%s has %d lines, more than %d", p, n, maxFileLines)
		}
		// Of a room's files a person reads those of one operating system.
		here, err := build.Default.MatchFile(path.Dir(p), path.Base(p))
		if here && ours[p] {
			rooms[path.Dir(p)] += n
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 100 {
		t.Errorf("saw %d files: the walk is broken", seen)
	}
	for room, n := range rooms {
		if limit := cmp.Or(largerRooms[room], maxRoomLines); n > limit {
			t.Errorf("%s has %d lines, more than %d: it holds more than one noun", room, n, limit)
		}
	}
	for room := range largerRooms {
		if rooms[room] <= maxRoomLines {
			t.Errorf("%s has %d lines, or isn't there: take it off largerRooms", room, rooms[room])
		}
	}
}

// engineless are rooms that work without an engine: whatever a program needs of them alone must not bring one along,
// nor sockets, nor a TUN.
var engineless = []string{
	"packet", "wgtypes", "conf", "uapi", "uapi/text", "endpoint",
	"proxy", "proxy/wireproxy", "proxy/internal/datagram", "proxy/internal/dial", "proxy/internal/forward", "proxy/internal/idle",
	"proxy/internal/login", "proxy/internal/names", "proxy/internal/relay", "proxy/internal/socks5",
	"netstack/internal/dns", "internal/eyeballs", "tun/offload",
}

// TestEngineless holds what engineless says, of all that a room depends on.
func TestEngineless(t *testing.T) {
	forbidden := []string{".", "internal/engine", "udp", "tun", "netstack"}
	for _, room := range engineless {
		out, err := exec.Command("go", "list", "-deps", "./"+room).Output()
		if err != nil {
			t.Errorf("go list %s: %v", room, err)
			continue
		}
		for dep := range strings.FieldsSeq(string(out)) {
			if r, ours := roomOf(t, dep); ours && slices.Contains(forbidden, r) {
				t.Errorf("%s depends on %s", room, r)
			}
		}
	}
}

// inlined are functions that are called for each packet or each train, and that the compiler puts into their callers.
// One that grows beyond the compiler's budget costs a call for each packet.
var inlined = map[string][]string{
	"packet":           {"(*Batch).Bytes", "(*Batch).Next", "(*Batch).Place", "(*Batch).Free", "(*Packet).Counter", "(*Packet).SetCounter", "(*Packet).Nonce"},
	"internal/session": {"(*Keypair).Reserve", "(*Keypair).CanSend", "(*Keypair).CanReceive", "(*Keypair).Accept", "(*Keypair).RekeyOnSend"},
	"internal/mono":    {"Time.Sub"},
	"internal/wire":    {"Padded"},
	"internal/timers":  {"(*Timers).DataSent", "(*Timers).AuthenticatedSent", "(*Timers).AuthenticatedReceived"},
	"internal/peer":    {"(*Peer).Endpoint"},
}

// TestHotFunctionsAreInlined asks the compiler.
func TestHotFunctionsAreInlined(t *testing.T) {
	rooms := slices.Sorted(maps.Keys(inlined))
	args := []string{"build", "-gcflags=-m"}
	for _, room := range rooms {
		args = append(args, "./"+room)
	}
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	can := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		where, name, ok := strings.Cut(strings.TrimSpace(line), ": can inline ")
		if file, _, _ := strings.Cut(where, ":"); ok {
			name, _, _ = strings.Cut(name, " ") // with -m=2 comes the cost
			can[path.Dir(filepath.ToSlash(file))+" "+name] = true
		}
	}
	for _, room := range rooms {
		for _, name := range inlined[room] {
			if !can[room+" "+name] {
				t.Errorf("%s: %s is no longer inlined", room, name)
			}
		}
	}
}

// TestEveryFuzzTargetHasACorpus holds that inputs worth running each time are checked in, a few kilobytes a target, and
// that no corpus has outlived its target.
func TestEveryFuzzTargetHasACorpus(t *testing.T) {
	const most = 16 << 10
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	targets := map[string]bool{} // by the directory of the corpus
	var there []string
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			if filepath.Base(filepath.Dir(p)) == "fuzz" && filepath.Base(filepath.Dir(filepath.Dir(p))) == "testdata" {
				there = append(there, p)
			}
			return nil
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if _, err := parser.ParseFile(token.NewFileSet(), p, text, parser.PackageClauseOnly); err != nil {
			return err
		}
		for _, m := range target.FindAllStringSubmatch(string(text), -1) {
			targets[filepath.Join(filepath.Dir(p), "testdata", "fuzz", m[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) < 20 {
		t.Errorf("saw %d fuzz targets: the walk is broken", len(targets))
	}
	for dir := range targets {
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			t.Errorf("%s: there is no corpus", dir)
			continue
		}
		size := int64(0)
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			size += info.Size()
		}
		if size > most {
			t.Errorf("%s: the corpus has %d bytes, more than %d", dir, size, most)
		}
	}
	for _, dir := range there {
		if !targets[dir] {
			t.Errorf("%s: there is no such fuzz target", dir)
		}
	}
}
