package text

import (
	"bufio"
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// After a request nothing of its lines is left in the reader's buffer, however they came, and the next one is read.
func TestWipeBuffer(t *testing.T) {
	key := strings.Repeat("5a", 32)
	request := strings.Repeat("private_key="+key+"\n", 150) + "\n" // more than the buffer holds: lines are moved in it
	for name, source := range map[string]io.Reader{
		"whole":      strings.NewReader(request),
		"by halves":  iotest.HalfReader(strings.NewReader(request)),
		"by byte":    iotest.OneByteReader(strings.NewReader(request)),
		"two pieces": io.MultiReader(strings.NewReader(request[:40]), strings.NewReader(request[40:])),
	} {
		r := bufio.NewReaderSize(source, 4200)
		cfg, err := ReadConfig(r)
		if err != nil {
			t.Fatal(err)
		}
		Wipe(&cfg)
		next := "get=1\n\n"
		WipeBuffer(r, strings.NewReader(next))
		buffer := reflect.ValueOf(r).Elem().FieldByName("buf").Bytes()
		if len(buffer) != 4200 || !bytes.Equal(buffer, make([]byte, len(buffer))) {
			t.Errorf("%s: the buffer of %d bytes isn't zero", name, len(buffer))
		}
		if op, err := ReadOperation(r); op != Get || err != nil {
			t.Errorf("%s: then %q, %v", name, op, err)
		}
	}
	r := bufio.NewReader(strings.NewReader("a\nunread\n"))
	r.ReadString('\n')
	WipeBuffer(r, nil)
	if s, _ := r.ReadString('\n'); s != "unread\n" {
		t.Errorf("what was unread is %q", s)
	}
}
