package conf

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
)

// Write writes a file as "wg showconf" does, with the keys that wg-quick adds, secrets included. Reading it back gives the
// same File but for its name and positions, with [Parser.Env] or without. A value that a file can't hold, such as a hook
// with a '#' or an end of line in it, or a Table that begins with '$', is an error, and then nothing is written. In
// Globals and Sections, values that need quotes are written in backquotes.
func Write(w io.Writer, f *File) error {
	t := &text{}
	t.entries(f.Globals, true)
	t.section("Interface")
	i := &f.Interface
	if i.ListenPort != nil {
		t.line("ListenPort", fmt.Sprint(*i.ListenPort))
	}
	if i.Mark != nil {
		t.line("FwMark", fmt.Sprintf("%#x", *i.Mark))
	}
	if i.PrivateKey != nil {
		t.line("PrivateKey", i.PrivateKey.Base64())
	}
	t.list("Address", words(i.Address))
	t.list("DNS", append(words(i.DNS), i.Search...))
	if i.MTU != 0 {
		t.line("MTU", fmt.Sprint(i.MTU))
	}
	if variable(i.Table) {
		t.fail("Table", "has a value that begins with '$'")
	}
	t.line("Table", i.Table)
	for _, h := range []struct {
		name  string
		lines []string
	}{{"PreUp", i.PreUp}, {"PostUp", i.PostUp}, {"PreDown", i.PreDown}, {"PostDown", i.PostDown}} {
		for _, v := range h.lines {
			t.line(h.name, v)
		}
	}
	if i.SaveConfig {
		t.line("SaveConfig", "true")
	}
	t.entries(i.Extra, false)
	for n := range f.Peers {
		p := &f.Peers[n]
		t.section("Peer")
		t.line("PublicKey", p.PublicKey.String())
		if p.PresharedKey != nil {
			t.line("PresharedKey", p.PresharedKey.Base64())
		}
		t.list("AllowedIPs", words(p.AllowedIPs))
		if !p.Endpoint.IsZero() {
			t.line("Endpoint", p.Endpoint.String())
		}
		if p.PersistentKeepalive != nil {
			t.line("PersistentKeepalive", fmt.Sprint(int(*p.PersistentKeepalive/time.Second)))
		}
	}
	for _, s := range f.Sections {
		t.section(s.Name)
		t.entries(s.Entries, true)
	}
	if t.err != nil {
		return t.err
	}
	out := bufio.NewWriter(w)
	for _, l := range t.lines {
		out.WriteString(l)
		out.WriteByte('\n')
	}
	return out.Flush()
}

// text is a file that is being written.
type text struct {
	lines []string
	err   error // the first that a method met
}

// section writes the header of a section.
func (t *text) section(name string) {
	if name == "" || strings.Trim(name, space) != name || strings.ContainsAny(name, "[]#\x00\r\n") {
		t.fail("a section's name", "can't be written")
	}
	if len(t.lines) > 0 {
		t.lines = append(t.lines, "")
	}
	t.lines = append(t.lines, "["+name+"]")
}

// line writes a value that isn't empty, as wg's sections have it: without quotes.
func (t *text) line(key, value string) {
	if value == "" {
		return
	}
	if strings.ContainsAny(value, "#\x00\r\n") || strings.Trim(value, space) != value || len(key)+len(value)+3 > maxLine {
		t.fail(key, "has a value with a '#', an end of line, or spaces around it, or one that is too long")
		return
	}
	t.lines = append(t.lines, key+" = "+value)
}

// list writes a list, in as many lines as it needs.
func (t *text) list(key string, items []string) {
	empty := len(key) + len(" = ") - len(", ") // of a line, before its first item
	from, n := 0, empty
	for i, item := range items {
		more := len(", ") + len(item)
		if n += more; n > maxLine && i > from {
			t.line(key, strings.Join(items[from:i], ", "))
			from, n = i, empty+more
		}
	}
	t.line(key, strings.Join(items[from:], ", "))
}

// entries writes entries with the keys and values that they have. With quotes, as sections that aren't wg's have them, a
// value that needs quotes gets them.
func (t *text) entries(list []Entry, quotes bool) {
	for i := range list {
		e := &list[i]
		v := e.Value
		plain := strings.Trim(v, space) == v && !strings.ContainsAny(v, "#;") && (v == "" || strings.IndexByte("`\"'$", v[0]) < 0)
		if quotes && !plain {
			for _, q := range "`\"'" {
				if !strings.ContainsRune(v, q) {
					v, plain = string(q)+v+string(q), true
					break
				}
			}
		} else if !quotes {
			plain = strings.Trim(v, space) == v && !strings.Contains(v, "#") && !variable(v)
		}
		if !plain || strings.ContainsAny(e.Key, "=#\x00\r\n") || strings.ContainsAny(v, "\x00\r\n") || len(e.Key)+len(v)+3 > maxLine {
			t.fail(showKey(e.Key), "has a key or a value that can't be written")
			return
		}
		t.lines = append(t.lines, e.Key+" = "+v)
	}
}

// variable reports whether a reader with [Parser.Env] would take v, without quotes, for the name of a variable.
func variable(v string) bool { return strings.HasPrefix(v, "$") }

// fail records an error, unless there is one already.
func (t *text) fail(what, problem string) {
	if t.err == nil {
		t.err = fmt.Errorf("conf: %s %s", what, problem)
	}
}

// words returns the texts of a list of values.
func words[T fmt.Stringer](list []T) []string {
	var w []string
	for _, v := range list {
		w = append(w, v.String())
	}
	return w
}
