package conf

import (
	"fmt"
	"strconv"
	"strings"

	"throughline/wgtypes"
)

// A Pos is a place in a file.
type Pos struct {
	File string // the name that the parser was given
	Line int    // from 1
	Col  int    // in bytes, from 1
}

// String returns file:line:column.
func (p Pos) String() string {
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Col)
}

// An Error is what is wrong at one place of a file.
type Error struct {
	Pos     Pos
	Key     string // the key it is about, or empty
	Value   string // the value; empty when there is none, or when it may be a secret
	Problem string // what is wrong, and what to do
}

// Error returns one line: the place, the key, the value, the problem.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Pos.String())
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key)
		if e.Value != "" {
			fmt.Fprintf(&b, " %q", e.Value)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// An Entry is one line "Key = Value", or one item of the list that a value is.
type Entry struct {
	Key     string
	Value   string // without comment, quotes and the spaces around it
	Pos     Pos    // of the value
	private bool   // the value came from the environment: errors don't show it
}

// A Section is a header and the entries below it, in the order of the file.
type Section struct {
	Name    string // as written, without brackets
	Pos     Pos    // of the header
	Entries []Entry
}

// String returns the place and the key: a value may be a secret.
func (e Entry) String() string { return e.Pos.String() + ": " + e.Key }

// GoString returns what [Entry.String] does.
func (e Entry) GoString() string { return e.String() }

// Is reports whether the entry has this key, ignoring case.
func (e *Entry) Is(key string) bool { return strings.EqualFold(e.Key, key) }

// Wrong returns an [*Error] about the entry. It shows the value, unless that came from [Parser.Env] or might be a
// WireGuard key.
func (e *Entry) Wrong(problem string) error {
	err := &Error{Pos: e.Pos, Key: showKey(e.Key), Problem: problem}
	if !e.private && !wgtypes.MayBeKey(e.Value) {
		err.Value = cut(e.Value)
	}
	return err
}

// WrongSecret returns an [*Error] about the entry that doesn't show its value.
func (e *Entry) WrongSecret(problem string) error {
	return &Error{Pos: e.Pos, Key: showKey(e.Key), Problem: problem}
}

// List returns the items of a value that is a list, split at commas, each with its own position. An empty value has no items.
func (e *Entry) List() []Entry {
	if e.Value == "" {
		return nil
	}
	var items []Entry
	at := 0
	for item := range strings.SplitSeq(e.Value, ",") {
		v := strings.TrimLeft(item, space)
		it := *e
		it.Pos.Col += at + len(item) - len(v)
		it.Value = strings.TrimRight(v, space)
		items = append(items, it)
		at += len(item) + 1
	}
	return items
}

// maxShown bounds how much of a value an error shows, in bytes.
const maxShown = 80

// cut shortens s to maxShown bytes.
func cut(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "..."
	}
	return s
}

// showKey returns what an error may show of a key. A secret that stands alone on a line ends in '=' and looks like a
// key without a value, so only what looks like a name is shown.
func showKey(key string) string {
	if len(key) > 32 {
		return ""
	}
	for i := range len(key) {
		if c := key[i] | 0x20; c < 'a' || c > 'z' {
			if i == 0 || key[i] < '0' || key[i] > '9' {
				return ""
			}
		}
	}
	return key
}
