package demo

import (
	"bytes"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

// TestContentAnyCut checks that a content is the same in pieces of any size.
func TestContentAnyCut(t *testing.T) {
	whole := make([]byte, 1000)
	(&content{seed: 7}).fill(whole)
	for _, cut := range []int{1, 3, 7, 8, 9, 64, 333} {
		c := content{seed: 7}
		var got []byte
		for len(got) < len(whole) {
			p := make([]byte, min(cut, len(whole)-len(got)))
			c.fill(p)
			got = append(got, p...)
		}
		if !bytes.Equal(got, whole) {
			t.Errorf("in pieces of %d bytes the content differs", cut)
		}
	}
	other := make([]byte, 1000)
	(&content{seed: 8}).fill(other)
	same := 0
	for i := range whole {
		if whole[i] == other[i] {
			same++
		}
	}
	if same > 40 { // 4 on average
		t.Errorf("two seeds have %d bytes of 1000 in common", same)
	}
	if bytes.Equal(whole[:8], whole[8:16]) || bytes.Contains(whole[8:], whole[:8]) {
		t.Error("a content repeats itself")
	}
}

func TestVerify(t *testing.T) {
	sent, err := io.ReadAll(iotest.OneByteReader(&source{content: content{seed: 3}, size: 5000}))
	if err != nil || len(sent) != 5000 {
		t.Fatalf("%d bytes, %v", len(sent), err)
	}
	flipped := bytes.Clone(sent)
	flipped[4321] ^= 1
	swapped := append(bytes.Clone(sent[1000:2000]), sent[:1000]...)
	for _, c := range []struct {
		name string
		data []byte
		want string // empty: intact
	}{
		{"intact", sent, ""},
		{"a bit is wrong", flipped, "byte 4321 isn't"},
		{"out of order", append(swapped, sent[2000:]...), "byte 0 isn't"},
		{"too short", sent[:4999], "4999 bytes of 5000"},
		{"nothing", nil, "0 bytes of 5000"},
		{"too long", append(bytes.Clone(sent), 0), "isn't what was sent"},
	} {
		right := 0
		err := verify(iotest.HalfReader(bytes.NewReader(c.data)), &check{content: content{seed: 3}, moved: func(n int) { right += n }}, 5000)
		if c.want == "" {
			if err != nil || right != 5000 {
				t.Errorf("%s: %v, %d bytes right", c.name, err, right)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestServeStream(t *testing.T) {
	sent, _ := io.ReadAll(&source{content: content{seed: 9}, size: 300})
	for _, c := range []struct {
		method, query string
		body          []byte
		status        int
	}{
		{"POST", "seed=9&bytes=300", nil, 200},
		{"POST", "seed=9", nil, 400},
		{"POST", "bytes=300", nil, 400},
		{"POST", "seed=9&bytes=-1", nil, 400},
		{"POST", "seed=9&bytes=99999999999999", nil, 400},
		{"PUT", "seed=9&bytes=300", sent, 204},
		{"PUT", "seed=8&bytes=300", sent, 422},
		{"PUT", "seed=9&bytes=301", sent, 422},
		{"PUT", "seed=9&bytes=-1", nil, 400},
		{"GET", "seed=9&bytes=300", nil, 405},
	} {
		w := httptest.NewRecorder()
		(&Demo{}).handler().ServeHTTP(w, httptest.NewRequest(c.method, "http://10.0.0.2/stream?"+c.query, bytes.NewReader(c.body)))
		if w.Code != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.query, w.Code, c.status)
		}
		if c.status == 200 && !bytes.Equal(w.Body.Bytes(), sent) {
			t.Errorf("%s %s: not the content", c.method, c.query)
		}
	}
}

// TestOtherSites checks that a page of another site can't make the browser carry a load.
func TestOtherSites(t *testing.T) {
	for _, c := range []struct{ method, path string }{{"POST", "/load?direction=up&streams=1&mib=1"}, {"POST", "/stream?seed=1&bytes=1"}, {"PUT", "/stream?seed=1&bytes=1"}} {
		for _, header := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://elsewhere.test"}} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(c.method, "http://10.0.0.2"+c.path, nil)
			r.Header.Set(header[0], header[1])
			if (&Demo{}).handler().ServeHTTP(w, r); w.Code != 403 {
				t.Errorf("%s %s with %v: status %d, want 403", c.method, c.path, header, w.Code)
			}
		}
	}
}

func TestStreamAllocatesNothing(t *testing.T) {
	p := make([]byte, 32<<10)
	s := &source{size: maxStream}
	c := &check{want: make([]byte, len(p))}
	if n := testing.AllocsPerRun(20, func() {
		s.Read(p)
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a piece", n)
	}
}

func BenchmarkContent(b *testing.B) {
	p := make([]byte, 32<<10)
	b.SetBytes(int64(len(p)))
	c := content{seed: 1}
	for b.Loop() {
		c.fill(p)
	}
}
