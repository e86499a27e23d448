package demo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// maxStream bounds one stream, in bytes, so that even one asked for by mistake ends.
const maxStream = 64 << 30

// A content is a pseudo-random stream of bytes that both ends can make, from any position on: SplitMix64, whose n-th word
// depends on nothing but the seed and n. It costs a fraction of what the tunnel does, and doesn't repeat itself.
type content struct {
	seed uint64
	at   int64 // the position, in bytes
}

// word returns the n-th 8 bytes.
func (c *content) word(n uint64) uint64 {
	z := c.seed + (n+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// fill fills p with the next bytes.
func (c *content) fill(p []byte) {
	var w [8]byte
	if r := c.at & 7; r != 0 {
		binary.LittleEndian.PutUint64(w[:], c.word(uint64(c.at>>3)))
		n := copy(p, w[r:])
		p, c.at = p[n:], c.at+int64(n)
	}
	n := uint64(c.at >> 3)
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, c.word(n))
		n, c.at = n+1, c.at+8
	}
	if len(p) > 0 {
		binary.LittleEndian.PutUint64(w[:], c.word(n))
		c.at += int64(copy(p, w[:]))
	}
}

// A source is a reader of the first size bytes of a content.
type source struct {
	content
	size  int64
	moved func(n int) // nil, or called with the number of bytes read
}

func (s *source) Read(p []byte) (int, error) {
	if s.at >= s.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.size-s.at)]
	s.fill(p)
	if s.moved != nil {
		s.moved(len(p))
	}
	return len(p), nil
}

// A check is a writer that compares every byte written to it with a content.
type check struct {
	content
	want  []byte      // memory for what should be written
	moved func(n int) // nil, or called with the number of bytes that were right
}

func (c *check) Write(p []byte) (int, error) {
	if len(c.want) < len(p) {
		c.want = make([]byte, len(p))
	}
	begin, want := c.at, c.want[:len(p)]
	c.fill(want)
	if string(p) != string(want) { // compares, allocates nothing
		for i := range p {
			if p[i] != want[i] {
				return i, fmt.Errorf("byte %d isn't what was sent", begin+int64(i))
			}
		}
	}
	if c.moved != nil {
		c.moved(len(p))
	}
	return len(p), nil
}

// verify reads all of r, which must be the first size bytes of a content.
func verify(r io.Reader, c *check, size int64) error {
	// Without r's WriteTo, if it has one, so that each read is checked at once.
	_, err := io.CopyBuffer(c, struct{ io.Reader }{r}, make([]byte, 256<<10))
	if err == nil && c.at != size {
		err = fmt.Errorf("%d bytes of %d arrived", c.at, size)
	}
	return err
}

// parseStream returns the content that a request names. If it names none, it answers the request, and ok is false.
func parseStream(w http.ResponseWriter, r *http.Request) (c content, size int64, ok bool) {
	q := r.URL.Query()
	seed, err1 := strconv.ParseUint(q.Get("seed"), 10, 64)
	size, err2 := strconv.ParseInt(q.Get("bytes"), 10, 64)
	if err := errors.Join(err1, err2); err != nil || size < 0 || size > maxStream {
		http.Error(w, "ask for /stream?seed=N&bytes=N", http.StatusBadRequest)
		return content{}, 0, false
	}
	return content{seed: seed}, size, true
}

// receiveStream checks the content in the request's body.
func receiveStream(w http.ResponseWriter, r *http.Request) {
	c, size, ok := parseStream(w, r)
	if !ok {
		return
	}
	if err := verify(r.Body, &check{content: c}, size); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// sendStream answers with a content.
func sendStream(w http.ResponseWriter, r *http.Request) {
	c, size, ok := parseStream(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	io.CopyBuffer(struct{ io.Writer }{w}, &source{content: c, size: size}, make([]byte, 256<<10))
}
