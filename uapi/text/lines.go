package text

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"syscall"
)

// The operations a request begins with.
const (
	Get = "get=1"
	Set = "set=1"
)

// ReadOperation reads the first line of a request and skips empty lines before it. It returns [Get] or [Set], or "" for
// any other line, even one cut short; then [ReadEnd] reads what is left of the request. An error is the reader's: io.EOF
// when no request follows.
func ReadOperation(r *bufio.Reader) (string, error) {
	l := lines{r: r}
	for {
		line, err := l.next()
		switch {
		case err == errLongLine || err == io.ErrUnexpectedEOF:
			return "", nil
		case err != nil:
			return "", err
		case len(line) == 0:
			continue
		case string(line) == Get:
			return Get, nil
		case string(line) == Set:
			return Set, nil
		}
		clear(line)
		return "", nil
	}
}

// ReadEnd reads up to and including the empty line that ends a request. A *[ParseError] means that other lines came
// before it; any other error is the reader's.
func ReadEnd(r *bufio.Reader) error {
	l := lines{r: r}
	var bad error
	for {
		line, err := l.next()
		switch {
		case err == nil && len(line) == 0:
			return bad
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil && err != errLongLine:
			return err
		}
		clear(line)
		if bad == nil {
			bad = protocolError(l.n, "no line is expected here")
		}
	}
}

// ReadErrno reads the answer to a set request. The first result is the answer's errno, nil for 0 and else a
// [syscall.Errno]; the second is why it couldn't be read.
func ReadErrno(r *bufio.Reader) (answer, err error) {
	l := lines{r: r}
	line, err := l.next()
	if err == errLongLine {
		return nil, protocolError(l.n, longLine)
	} else if err != nil {
		return nil, err
	}
	key, value, ok := cut(line)
	if !ok {
		return nil, protocolError(l.n, noEquals)
	}
	if string(key) != "errno" {
		return nil, lineError(l.n, key, value, unknownKey)
	}
	n, ok := parseErrno(value)
	if !ok {
		return nil, lineError(l.n, key, value, badNumber)
	}
	if err := ReadEnd(r); err != nil {
		return nil, err
	}
	if n != 0 {
		answer = n
	}
	return answer, nil
}

// WriteErrno writes the whole answer to a set request, or to another request that failed: the [syscall.Errno] that err
// wraps, EINVAL if it wraps none, 0 if err is nil. wg(8) expects a negative number in the answer to a set request, and a
// positive one elsewhere.
func WriteErrno(w io.Writer, err error, negative bool) error {
	n := 0
	if err != nil {
		n = number(errnoOf(err))
	}
	if negative {
		n = -n
	}
	_, err = w.Write(append(strconv.AppendInt([]byte("errno="), int64(n), 10), "\n\n"...))
	return err
}

// parseErrno reads an errno of either sign; 0 is none.
func parseErrno(value []byte) (syscall.Errno, bool) {
	if len(value) > 1 && value[0] == '-' {
		value = value[1:]
	}
	v, ok := parseUint(value, 1<<31-1)
	if v == 0 {
		return 0, ok
	}
	return fromNumber(int(v)), ok
}

var errLongLine = errors.New("line too long")

// lines reads the lines of one request or answer, and counts them.
type lines struct {
	r *bufio.Reader
	n int // of the line read last, from 1
}

// next returns the next line without its end, which is valid until the next call. A line that is too long is skipped as a
// whole, with errLongLine. io.EOF comes only between lines; within one it is io.ErrUnexpectedEOF.
func (l *lines) next() ([]byte, error) {
	l.n++
	line, err := l.r.ReadSlice('\n')
	if err == nil && len(line) <= maxLine {
		return line[:len(line)-1], nil
	}
	some := len(line) > 0
	clear(line)
	for err == bufio.ErrBufferFull {
		line, err = l.r.ReadSlice('\n')
		clear(line)
	}
	switch {
	case err == nil:
		return nil, errLongLine
	case err == io.EOF && some:
		return nil, io.ErrUnexpectedEOF
	}
	return nil, err
}

// cut splits a line at its first "=".
func cut(line []byte) (key, value []byte, ok bool) {
	return bytes.Cut(line, []byte{'='})
}

// WipeBuffer overwrites r's buffer with zeros, if nothing in it is unread: where lines were moved to make room, copies of
// them are left, and they may have been keys. source is what r reads from, and goes on reading from.
func WipeBuffer(r *bufio.Reader, source io.Reader) {
	if r.Buffered() == 0 {
		r.Reset(zeros{})
		r.Peek(r.Size()) // fills it
		r.Reset(source)
	}
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
