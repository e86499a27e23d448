package cookie

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"throughline/internal/wire"
)

// The macs against values computed by Python's hashlib, another BLAKE2s.
func TestKnownAnswers(t *testing.T) {
	keys := KeysFor(public)
	want := func(what string, got []byte, want string) {
		t.Helper()
		if hex.EncodeToString(got) != want {
			t.Errorf("%s = %x, want %s", what, got, want)
		}
	}
	want("the key of mac1", keys.mac1[:], "4fb2527ac956001553dc1ad9b55171b7d9daa3de1cdbcd71451830170c7e6cac")
	want("the key of replies", keys.reply[:], "3dd5869c5202e45146936d1644f76ff697061661c181f3fd450eae43932eacec")

	r := &secret{key: [32]byte(sequence(100, 32)), born: start}
	c4, c6 := r.cookie(v4), r.cookie(v6)
	want("the cookie for an IPv4 source", c4[:], "a3eb70d73e57e2aaa66fbd04ce8311d8")
	want("the cookie for an IPv6 source", c6[:], "ce6d90743e4297c0cae0b0ffb52cffa5")

	j := Jar{cookie: c4, born: start}
	msg := initiation()
	j.AddMACs(start, &keys, msg)
	want("an initiation's mac1", msg[wire.InitiationMAC1:wire.InitiationMAC2], "44a5276c0c75b37d5cfede7eaeb9cf59")
	want("an initiation's mac2", mac2Of(msg), "55d3f041c39328d0ccfd9a93668be051")
	msg = response()
	j.AddMACs(start, &keys, msg)
	want("a response's mac1", msg[wire.ResponseMAC1:wire.ResponseMAC2], "5760cb0cd27ce341104949b3ea1a887d")
	want("a response's mac2", mac2Of(msg), "b995bf52d5668c2be77d9edeb42cc4e8")
	j.cookie = c6
	msg = initiation()
	j.AddMACs(start, &keys, msg)
	want("an initiation's mac2 over IPv6", mac2Of(msg), "f062872a72a4d24aecef18a39d051809")
}

// draft-irtf-cfrg-xchacha-03, A.3.1.
func TestXChaChaDraft(t *testing.T) {
	key := [32]byte(sequence(0x80, 32))
	aead, err := xaead(&key)
	if err != nil {
		t.Fatal(err)
	}
	plain := "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
	got := aead.Seal(nil, sequence(0x40, 24), []byte(plain), unhex(t, "50515253c0c1c2c3c4c5c6c7"))
	if want := "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"; hex.EncodeToString(got) != want {
		t.Errorf("sealed to %x, want %s", got, want)
	}
}

func TestWycheproofXChaCha(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "vectors", "xchacha20_poly1305_test.json"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no vectors here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			IVSize int
			Tests  []struct {
				ID                                 int `json:"tcId"`
				Key, IV, AAD, Msg, CT, Tag, Result string
			}
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	valid, invalid := 0, 0
	for _, g := range file.TestGroups {
		if g.IVSize != wire.XNonceSize*8 {
			continue // not XChaCha20-Poly1305
		}
		for _, v := range g.Tests {
			key := [32]byte(unhex(t, v.Key))
			aead, err := xaead(&key)
			if err != nil {
				t.Fatal(err)
			}
			nonce, ad, msg, sealed := unhex(t, v.IV), unhex(t, v.AAD), unhex(t, v.Msg), unhex(t, v.CT+v.Tag)
			opened, err := aead.Open(nil, nonce, sealed, ad)
			if v.Result != "valid" {
				invalid++
				if err == nil {
					t.Errorf("vector %d was accepted", v.ID)
				}
				continue
			}
			valid++
			if err != nil || !bytes.Equal(opened, msg) {
				t.Errorf("vector %d: opened to %x, %v", v.ID, opened, err)
			}
			if got := aead.Seal(nil, nonce, msg, ad); !bytes.Equal(got, sealed) {
				t.Errorf("vector %d: sealed to %x", v.ID, got)
			}
		}
	}
	if valid < 200 || invalid < 20 {
		t.Errorf("%d valid and %d invalid vectors: the file isn't what it was", valid, invalid)
	}
}

// The whole reply by the paper's formula: §5.4.7, msg.cookie := XAEAD(HASH(label || S), nonce, cookie, mac1).
func TestReplyByThePaper(t *testing.T) {
	c, keys := NewChecker(public), KeysFor(public)
	msg, reply := response(), make([]byte, wire.CookieReplySize)
	new(Jar).AddMACs(start, &keys, msg)
	if err := c.Reply(start, reply, msg, v6, random()); err != nil {
		t.Fatal(err)
	}
	drawn := make([]byte, 56) // 32 of the secret, 24 of the nonce
	io.ReadFull(random(), drawn)
	var a [16]byte
	mac(&a, drawn[:32], append(unhex(t, "20010db8000000000000000000000001"), 0xca, 0x6c)) // 51820
	aead, err := chacha20poly1305.NewX(unhex(t, "3dd5869c5202e45146936d1644f76ff697061661c181f3fd450eae43932eacec"))
	if err != nil {
		t.Fatal(err)
	}
	want := binary.LittleEndian.AppendUint32(nil, 3)
	want = append(append(want, msg[4:8]...), drawn[32:]...)
	want = aead.Seal(want, drawn[32:], a[:], unhex(t, "5760cb0cd27ce341104949b3ea1a887d"))
	if !bytes.Equal(reply, want) {
		t.Errorf("reply = %x, want %x", reply, want)
	}
}
