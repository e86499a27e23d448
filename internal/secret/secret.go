// Package secret erases key material: copies of our own, those that the libraries keep, what a computation left on the
// stack, and keys that several goroutines use, once the last of them is done.
//
// Concurrency: [Users] is for any number of goroutines; what the functions erase must not be in use any more.
//
// Limits: what is erased is what these functions are given. Registers, and stacks that the runtime moved or shrank, keep
// what they had until they are overwritten, except within [Do] where [ByRuntime] is true; elsewhere Do clears at most
// 8 KiB of stack.
package secret

import (
	"crypto/cipher"
	"crypto/ecdh"
	"reflect"
)

// Clear overwrites b with zeros. It isn't inlined, or the compiler might find that the zeros are never read and not write
// them.
//
//go:noinline
func Clear(b []byte) { clear(b) }

// ClearAEAD overwrites the key within an AEAD of x/crypto's chacha20poly1305, which has no method for it; nil has none. An
// AEAD of another kind is left as it is. Afterwards it must not be used.
func ClearAEAD(a cipher.AEAD) {
	if v := reflect.ValueOf(a); v.Kind() == reflect.Pointer && !v.IsNil() && v.Elem().Kind() == reflect.Struct {
		v.Elem().SetZero() // the struct holds the key itself; a test tells when it no longer does
	}
}

// ClearX25519 overwrites the scalar of an X25519 key, for which crypto/ecdh has no method; nil has none. Afterwards the
// key must not be used.
func ClearX25519(k *ecdh.PrivateKey) {
	if k != nil {
		Clear(scalar(k))
	}
}

// X25519 copies the scalar of an X25519 key to dst, and nowhere else: [ecdh.PrivateKey.Bytes] leaves a copy on the stack.
func X25519(dst []byte, k *ecdh.PrivateKey) {
	if b := scalar(k); len(b) > 0 {
		copy(dst, b)
		return
	}
	copy(dst, k.Bytes())
}

// scalar returns the bytes that an X25519 key holds, nil if its type is no longer as it was. A test tells then.
func scalar(k *ecdh.PrivateKey) []byte {
	f := reflect.ValueOf(k).Elem().FieldByName("privateKey")
	if !f.IsValid() || f.Kind() != reflect.Slice || f.Type().Elem().Kind() != reflect.Uint8 {
		return nil
	}
	return f.Bytes() // the slice itself
}
