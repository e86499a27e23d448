package conf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"throughline/wgtypes"
)

// Limits of a file, in bytes.
const (
	maxFile = 16 << 20
	maxLine = 64 << 10 // without its end
)

const (
	space = " \t\r\v\f"
	bom   = "\ufeff" // the byte order mark that some editors put before UTF-8
)

// A Parser reads files. Its zero value reads what wg-quick(8) reads. It may be used by several goroutines at once as long
// as nobody changes it.
type Parser struct {
	// Env, unless it is nil, returns the value of an environment variable, and whether it is set; os.LookupEnv does. A
	// value that is $NAME as a whole is replaced by it; $$ at the start of a value stands for one $. Hooks and quoted
	// values are left as they are.
	Env func(name string) (value string, ok bool)

	// Extra names further keys of the section [Interface], whose entries go to Interface.Extra, in any case of letters. Any
	// key that is neither wg's nor wg-quick's nor here is a mistake.
	Extra []string
}

// Parse reads a file with the zero [Parser]. The name is for errors.
func Parse(name string, r io.Reader) (*File, error) { return (&Parser{}).Parse(name, r) }

// Parse reads a file. The name is for errors and positions. The error has all mistakes found, in the order of the file and
// at most 20 of them, each an [*Error] that errors.As finds, or it is the reader's. With an error there is no File.
func (p *Parser) Parse(name string, r io.Reader) (*File, error) {
	s := &state{Parser: p, file: &File{Name: name}, peers: make(map[wgtypes.PublicKey]int)}
	// One byte more than a line may have, and its end, so that a line that is too long can be recognised.
	in := bufio.NewReaderSize(r, maxLine+2)
	total := 0
	for {
		line, err := in.ReadSlice('\n')
		s.line++
		total += len(line)
		switch {
		case total > maxFile:
			s.wrong.Add(s.problem(1, fmt.Sprintf("the file is longer than %d MiB", maxFile>>20)))
			return nil, s.wrong.Err()
		case errors.Is(err, bufio.ErrBufferFull), len(strings.TrimRight(string(line), "\r\n")) > maxLine:
			s.wrong.Add(s.problem(1, fmt.Sprintf("the line is longer than %d KiB", maxLine>>10)))
			return nil, s.wrong.Err()
		case err != nil && err != io.EOF:
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		s.read(strings.TrimRight(string(line), "\r\n"))
		if err == io.EOF {
			break
		}
	}
	s.endSection()
	if err := s.wrong.Err(); err != nil {
		return nil, err
	}
	return s.file, nil
}

// A kind is the kind of section that a line is in.
type kind int

const (
	global kind = iota
	inInterface
	inPeer
	inOther
)

// state is a file that is being read.
type state struct {
	*Parser
	file  *File
	line  int
	in    kind
	seen  map[string]int            // the lines of those keys of this section that may be there once, by their names in lower case
	peers map[wgtypes.PublicKey]int // the lines of the headers of peers
	wrong Mistakes
}

func (s *state) pos(col int) Pos { return Pos{s.file.Name, s.line, col} }

func (s *state) problem(col int, text string) error { return &Error{Pos: s.pos(col), Problem: text} }

// read reads one line, without its end.
func (s *state) read(line string) {
	col := 1
	if s.line == 1 && strings.HasPrefix(line, bom) {
		line, col = line[len(bom):], col+len(bom)
	}
	if strings.IndexByte(line, 0) >= 0 || !utf8.ValidString(line) {
		s.wrong.Add(s.problem(col, "not text in UTF-8; save the file as UTF-8"))
		return
	}
	text := strings.TrimLeft(line, space)
	col += len(line) - len(text)
	text = strings.TrimRight(text, space)
	switch {
	case text == "" || text[0] == '#' || text[0] == ';':
	case text[0] == '[':
		s.header(text, col)
	default:
		s.entry(text, col)
	}
}

// header reads the header of a section.
func (s *state) header(text string, col int) {
	name, rest, ok := strings.Cut(text[1:], "]")
	rest = strings.TrimLeft(rest, space)
	name = strings.Trim(name, space)
	s.endSection()
	s.seen = make(map[string]int)
	at := s.pos(col)
	if !ok || rest != "" && rest[0] != '#' && rest[0] != ';' || strings.ContainsAny(name, "[#") || name == "" {
		s.wrong.Add(s.problem(col, "not a section; use [Name]"))
		s.in = inOther
		s.file.Sections = append(s.file.Sections, Section{Pos: at}) // so that its entries are not added to the section before
		return
	}
	switch {
	case strings.EqualFold(name, "Interface"):
		if s.file.Interface.Pos.Line != 0 {
			s.wrong.Add(s.problem(col, fmt.Sprintf("a second [Interface]; the first is on line %d", s.file.Interface.Pos.Line)))
		}
		s.in, s.file.Interface.Pos = inInterface, at
	case strings.EqualFold(name, "Peer"):
		s.in = inPeer
		s.file.Peers = append(s.file.Peers, Peer{Pos: at})
	default:
		s.in = inOther
		s.file.Sections = append(s.file.Sections, Section{Name: name, Pos: at})
	}
}

// endSection checks what can only be known when a section is complete.
func (s *state) endSection() {
	if s.in != inPeer {
		return
	}
	p := &s.file.Peers[len(s.file.Peers)-1]
	if _, ok := s.seen["publickey"]; !ok {
		s.wrong.Add(&Error{Pos: p.Pos, Problem: "[Peer] has no PublicKey; add one"})
		return
	}
	if p.PublicKey.IsZero() {
		return // reported at its line
	}
	if first, ok := s.peers[p.PublicKey]; ok {
		s.wrong.Add(&Error{Pos: p.Pos, Problem: fmt.Sprintf("a second [Peer] with the PublicKey of the one on line %d; put both into one", first)})
		return
	}
	s.peers[p.PublicKey] = p.Pos.Line
}

// entry reads a line "Key = Value".
func (s *state) entry(text string, col int) {
	key, value, ok := strings.Cut(text, "=")
	if i := strings.IndexByte(key, '#'); i >= 0 || !ok {
		s.wrong.Add(s.problem(col, "neither [Section] nor Key = Value"))
		return
	}
	at := col + len(key) + 1
	key = strings.TrimRight(key, space)
	v := strings.TrimLeft(value, space)
	e := Entry{Key: key, Value: v, Pos: s.pos(at + len(value) - len(v))}
	if key == "" {
		s.wrong.Add(s.problem(col, "a value without a key; use Key = Value"))
		return
	}
	switch s.in {
	case inInterface, inPeer:
		// As wg(8): a comment begins at any '#', and quotes are not special.
		e.Value, _, _ = strings.Cut(e.Value, "#")
		e.Value = strings.TrimRight(e.Value, space)
		s.known(&e)
	case global:
		if s.value(&e) {
			s.file.Globals = append(s.file.Globals, e)
		}
	default:
		if last := &s.file.Sections[len(s.file.Sections)-1]; s.value(&e) {
			last.Entries = append(last.Entries, e)
		}
	}
}

// value reads the value of an entry of a section that isn't wg's: it may be in quotes, and a comment needs a space before
// it. It returns false when it added a mistake.
func (s *state) value(e *Entry) bool {
	v := e.Value
	if v != "" && strings.IndexByte("`\"'", v[0]) >= 0 {
		if end := strings.IndexByte(v[1:], v[0]); end >= 0 {
			rest := strings.TrimLeft(v[end+2:], space)
			if rest == "" || rest[0] == '#' || rest[0] == ';' {
				e.Value = v[1 : end+1]
				e.Pos.Col++
				return true
			}
		}
	}
	if i := strings.IndexAny(v, "#;"); i == 0 || i > 0 && strings.IndexByte(space, v[i-1]) >= 0 {
		v = v[:i]
	} else if i > 0 {
		s.wrong.Add(e.WrongSecret("a '#' or ';' inside of a value; put the value in `backquotes`, or a space before the comment"))
		return false
	}
	e.Value = strings.TrimRight(v, space)
	return s.expand(e)
}

// expand replaces $NAME by the value of the environment variable. It returns false when it added a mistake.
func (s *state) expand(e *Entry) bool {
	name, ok := strings.CutPrefix(e.Value, "$")
	if s.Env == nil || !ok {
		return true
	}
	if strings.HasPrefix(name, "$") {
		e.Value = name
		return true
	}
	v, ok := s.Env(name)
	if !ok {
		// The name is not shown: it may be a password that begins with '$'.
		s.wrong.Add(e.WrongSecret("the environment variable it names is not set; set it, or write $$ for a value that begins with '$'"))
		return false
	}
	e.Value, e.private = strings.Trim(v, space+"\n"), true
	return true
}

// known reads an entry of [Interface] or [Peer].
func (s *state) known(e *Entry) {
	keys, section := interfaceKeys, "[Interface]"
	if s.in == inPeer {
		keys, section = peerKeys, "[Peer]"
	}
	name := strings.ToLower(e.Key)
	k, ok := keys[name]
	if !ok {
		is := func(key string) bool { return strings.EqualFold(key, e.Key) }
		if s.in == inInterface && slices.ContainsFunc(s.Extra, is) {
			if s.expand(e) {
				s.file.Interface.Extra = append(s.file.Interface.Extra, *e)
			}
			return
		}
		s.wrong.Add(s.unknown(e, section))
		return
	}
	if !k.many {
		if first, ok := s.seen[name]; ok {
			s.wrong.Add(e.WrongSecret(fmt.Sprintf("a second %s in this section; the first is on line %d", e.Key, first)))
			return
		}
		s.seen[name] = s.line
	}
	if !k.hook && !s.expand(e) {
		return
	}
	k.set(s, e)
}

// unknown returns the mistake of a key that is not known here, with the section that it belongs to, if any.
func (s *state) unknown(e *Entry, section string) error {
	name := strings.ToLower(e.Key)
	switch _, peers := peerKeys[name]; {
	case s.in == inInterface && peers:
		return e.WrongSecret("belongs below [Peer], not below [Interface]")
	case s.in == inPeer:
		if _, ok := interfaceKeys[name]; ok {
			return e.WrongSecret("belongs below [Interface], not below [Peer]")
		}
	}
	keys := interfaceKeys
	if s.in == inPeer {
		keys = peerKeys
	}
	var names []string
	for _, k := range keys {
		names = append(names, k.name)
	}
	slices.Sort(names)
	return e.WrongSecret("there is no such key in " + section + "; use one of " + strings.Join(names, ", "))
}
