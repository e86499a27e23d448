package secret

import (
	"bytes"
	"crypto/ecdh"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// The libraries' types are still as ClearAEAD and ClearX25519 take them to be.
func TestClearLibraries(t *testing.T) {
	key := bytes.Repeat([]byte{0x5a}, 32)
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	zero, _ := chacha20poly1305.New(make([]byte, 32))
	ClearAEAD(aead)
	if !reflect.DeepEqual(aead, zero) {
		t.Error("an AEAD that was cleared isn't that of the zero key")
	}
	if got, want := aead.Seal(nil, make([]byte, 12), key, nil), zero.Seal(nil, make([]byte, 12), key, nil); !bytes.Equal(got, want) {
		t.Error("an AEAD that was cleared doesn't seal as that of the zero key")
	}
	ClearAEAD(nil)

	k, err := ecdh.X25519().NewPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 32)
	if X25519(got, k); !bytes.Equal(got, key) {
		t.Error("the scalar is another")
	}
	ClearX25519(k)
	if !bytes.Equal(k.Bytes(), make([]byte, 32)) {
		t.Error("a private key that was cleared isn't zero")
	}
	ClearX25519(nil)
}

func TestUsers(t *testing.T) {
	var u Users
	for range 2 {
		if !u.Begin() {
			t.Fatal("a use was refused")
		}
	}
	if u.End() {
		t.Fatal("the first End erases")
	}
	for range 2 {
		if u.Retire() {
			t.Error("Retire erases while it is in use")
		}
	}
	if u.Begin() {
		t.Error("a use began after Retire")
	}
	if !u.End() {
		t.Error("the last End doesn't erase")
	}
	if u.Retire() || u.Begin() {
		t.Error("erased twice, or used again")
	}
	var unused Users
	if !unused.Retire() || unused.Retire() {
		t.Error("of what nobody uses the first Retire doesn't erase, or the second does")
	}
}

// Nobody uses what was erased, and it is erased once, whoever comes when. The secret is a plain variable: the race
// detector sees a use that erasing isn't ordered with.
func TestUsersConcurrently(t *testing.T) {
	for range 300 {
		var u Users
		var erased atomic.Int32
		value := 1
		erase := func() {
			value = 0
			erased.Add(1)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for u.Begin() {
					if value != 1 {
						t.Error("used after it was erased")
					}
					if u.End() {
						erase()
					}
				}
			})
		}
		for range 2 {
			all.Go(func() {
				if u.Retire() {
					erase()
				}
			})
		}
		all.Wait()
		if erased.Load() != 1 || value != 0 {
			t.Fatalf("erased %d times", erased.Load())
		}
	}
}

func TestDo(t *testing.T) {
	n := 0
	Do(func() { n++ })
	if n != 1 {
		t.Errorf("called %d times", n)
	}
}
