package noise

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"throughline/wgtypes"
)

// readVectors reads a file of vectors that is not part of the repository.
func readVectors(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "vectors", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no vectors here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func TestNoiseVector(t *testing.T) {
	var file struct {
		Vectors []struct {
			Name          string   `json:"protocol_name"`
			Prologue      string   `json:"init_prologue"`
			PSKs          []string `json:"init_psks"`
			InitStatic    string   `json:"init_static"`
			InitEphemeral string   `json:"init_ephemeral"`
			RemoteStatic  string   `json:"init_remote_static"`
			RespStatic    string   `json:"resp_static"`
			RespEphemeral string   `json:"resp_ephemeral"`
			HandshakeHash string   `json:"handshake_hash"`
			Messages      []struct{ Payload, Ciphertext string }
		}
	}
	readVectors(t, "noise_ikpsk2.json", &file)
	if len(file.Vectors) == 0 {
		t.Fatal("no vector in the file")
	}
	for _, v := range file.Vectors {
		key := func(s string) *Identity { return identity(t, [32]byte(unhex(t, s))) }
		i, r := key(v.InitStatic), key(v.RespStatic)
		ie, re := key(v.InitEphemeral).private, key(v.RespEphemeral).private
		psk, prologue := wgtypes.PresharedKey(unhex(t, v.PSKs[0])), unhex(t, v.Prologue)
		if r.Public() != wgtypes.PublicKey(unhex(t, v.RemoteStatic)) {
			t.Fatal("the responder's public key differs")
		}
		ss, err := i.SharedSecret(r.Public())
		if err != nil {
			t.Fatal(err)
		}
		responder := r.Public()
		want := func(what string, got []byte, want string) {
			t.Helper()
			if !bytes.Equal(got, unhex(t, want)) {
				t.Fatalf("%s = %x, want %s", what, got, want)
			}
		}

		var is, rs symmetric
		m := v.Messages[0]
		is.start(prologue, &responder)
		msg := make([]byte, len(m.Ciphertext)/2)
		if err := is.writeFirst(msg, i, responder, &ss, ie, unhex(t, m.Payload)); err != nil {
			t.Fatal(err)
		}
		want("message 1", msg, m.Ciphertext)
		rs.start(prologue, &responder)
		var static wgtypes.PublicKey
		remoteE, err := rs.readFirst(msg, r, &static)
		if err != nil || static != i.Public() {
			t.Fatalf("message 1: static %x, %v", static, err)
		}
		payload := make([]byte, len(m.Payload)/2)
		if err := rs.readFirstPayload(payload, msg[firstPayload:], &ss); err != nil {
			t.Fatal(err)
		}
		want("payload 1", payload, m.Payload)

		m = v.Messages[1]
		msg = make([]byte, len(m.Ciphertext)/2)
		if err := rs.writeSecond(msg, remoteE, &static, &psk, re, unhex(t, m.Payload)); err != nil {
			t.Fatal(err)
		}
		want("message 2", msg, m.Ciphertext)
		payload = make([]byte, len(m.Payload)/2)
		if err := is.readSecond(payload, msg, i, &psk, ie); err != nil {
			t.Fatal(err)
		}
		want("payload 2", payload, m.Payload)
		want("the initiator's handshake hash", is.h[:], v.HandshakeHash)
		want("the responder's handshake hash", rs.h[:], v.HandshakeHash)

		// Transport messages: initiator and responder by turns, as the roles go on alternating.
		if is.c != rs.c {
			t.Fatal("the chaining keys differ")
		}
		var k [2][32]byte
		is.split(&k[0], &k[1])
		for n, m := range v.Messages[2:] {
			aead, err := chacha20poly1305.New(k[n%2][:])
			if err != nil {
				t.Fatal(err)
			}
			nonce := make([]byte, 12)
			nonce[4] = byte(n / 2)
			want("a transport message", aead.Seal(nil, nonce, unhex(t, m.Payload), nil), m.Ciphertext)
		}
	}
}

// RFC 7748 §5.2 and §6.1, through the calls that the handshake makes; and the slow ladder of the second implementation.
func TestRFC7748(t *testing.T) {
	t.Parallel()
	x := func(scalar, u []byte) []byte {
		t.Helper()
		ss, err := identity(t, [32]byte(scalar)).SharedSecret(wgtypes.PublicKey(u))
		if err != nil {
			t.Fatal(err)
		}
		return ss[:]
	}
	for _, v := range [][3]string{
		{"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
			"e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
			"c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"},
		{"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
			"e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
			"95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"},
	} {
		k, u, want := unhex(t, v[0]), unhex(t, v[1]), unhex(t, v[2])
		if got := x(k, u); !bytes.Equal(got, want) {
			t.Errorf("X25519(%x, %x) = %x, want %x", k, u, got, want)
		}
		if got := paperX25519(k, u); !bytes.Equal(got, want) {
			t.Errorf("the slow X25519(%x, %x) = %x, want %x", k, u, got, want)
		}
	}

	k, u := nine, nine
	for n := 1; n <= 1000; n++ {
		k, u = x(k, u), k
		want := map[int]string{
			1:    "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
			1000: "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51",
		}[n]
		if want != "" && hex.EncodeToString(k) != want {
			t.Errorf("after %d iterations %x, want %s", n, k, want)
		}
	}

	alice := identity(t, [32]byte(unhex(t, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")))
	bob := identity(t, [32]byte(unhex(t, "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")))
	if p := alice.Public(); hex.EncodeToString(p[:]) != "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a" {
		t.Errorf("Alice's public key is %x", p)
	}
	if p := bob.Public(); hex.EncodeToString(p[:]) != "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f" {
		t.Errorf("Bob's public key is %x", p)
	}
	for _, pair := range [][2]*Identity{{alice, bob}, {bob, alice}} {
		ss, err := pair[0].SharedSecret(pair[1].Public())
		if err != nil || hex.EncodeToString(ss[:]) != "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742" {
			t.Errorf("the shared secret is %x, %v", ss, err)
		}
	}
}

// Every Wycheproof vector: the expected secret, or a refusal where it would be zero.
func TestWycheproofX25519(t *testing.T) {
	t.Parallel()
	var file struct {
		TestGroups []struct {
			Tests []struct {
				ID                              int `json:"tcId"`
				Public, Private, Shared, Result string
			}
		}
	}
	readVectors(t, "x25519_test.json", &file)
	n, refused := 0, 0
	for _, g := range file.TestGroups {
		for _, v := range g.Tests {
			n++
			want := [32]byte(unhex(t, v.Shared))
			got, err := identity(t, [32]byte(unhex(t, v.Private))).SharedSecret(wgtypes.PublicKey(unhex(t, v.Public)))
			switch {
			case want == [32]byte{}:
				refused++
				if !errors.Is(err, errPoint) {
					t.Errorf("vector %d: a point of low order: %v", v.ID, err)
				}
			case v.Result == "invalid":
				t.Errorf("vector %d is invalid, and we have no rule for it", v.ID)
			case err != nil || got != want:
				t.Errorf("vector %d: %x, %v, want %x", v.ID, got, err, want)
			}
		}
	}
	if n < 500 || refused == 0 {
		t.Errorf("%d vectors, %d of low order: the file isn't what it was", n, refused)
	}
}
