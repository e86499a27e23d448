package uapi

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

var errLongLine = errors.New("line too long")

// lines reads the lines of one request or answer, and counts them.
type lines struct {
	r *bufio.Reader
	n int // of the line read last, from 1
}

// next returns the next line without its end, borrowed until the next call. An overlong line is passed over whole, with
// errLongLine. io.EOF comes only between lines; within one it is io.ErrUnexpectedEOF.
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
	i := bytes.IndexByte(line, '=')
	if i < 0 {
		return nil, nil, false
	}
	return line[:i], line[i+1:], true
}
