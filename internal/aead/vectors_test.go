package aead

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"throughline/packet"
)

// A vector is one encryption with ChaCha20-Poly1305, or with XChaCha20-Poly1305 if its nonce has 24 bytes: that is
// ChaCha20-Poly1305 with a derived key and a nonce that begins with four zeros, as a transport message's does. So those
// without additional data are complete vectors for Seal and Open. Of the others Seal and Open can use: the ciphertext if
// the nonce begins with four zeros, and otherwise keys, texts and errors, compared with the slow reference, which itself
// is tested with the vectors.
type vector struct {
	name, key, nonce, ad, text, sealed string
	invalid                            bool
}

var rfc8439 = []vector{{
	name:  "RFC 8439 §2.8.2",
	key:   "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
	nonce: "070000004041424344454647",
	ad:    "50515253c0c1c2c3c4c5c6c7",
	text: hex.EncodeToString([]byte("Ladies and Gentlemen of the class of '99: " +
		"If I could offer you only one tip for the future, sunscreen would be it.")),
	sealed: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6" +
		"3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36" +
		"92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
		"3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
}, {
	name:  "RFC 8439 §A.5",
	key:   "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
	nonce: "000000000102030405060708",
	ad:    "f33388860000000000004e91",
	text: hex.EncodeToString([]byte("Internet-Drafts are draft documents valid for a maximum of six months and " +
		"may be updated, replaced, or obsoleted by other documents at any time. It is inappropriate to use " +
		"Internet-Drafts as reference material or to cite them other than as /\u201cwork in progress./\u201d")),
	sealed: "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2" +
		"4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf" +
		"332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855" +
		"9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4" +
		"b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e" +
		"af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a" +
		"0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10" +
		"49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29" +
		"a6ad5cb4022b02709beead9d67890cbb22392336fea1851f38",
}}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// keyNonce returns the vector's key and nonce, converted to those of ChaCha20-Poly1305.
func (v vector) keyNonce(t *testing.T) (key, nonce []byte) {
	key, nonce = unhex(t, v.key), unhex(t, v.nonce)
	if len(nonce) == 24 {
		key, nonce = refHChaCha(key, nonce[:16]), append(make([]byte, 4, 12), nonce[16:]...)
	}
	return key, nonce
}

// checkParts tests with a vector what the implementations are made of: x/crypto, the portable ChaCha20 and Poly1305, and
// the slow reference.
func (v vector) checkParts(t *testing.T) {
	key, nonce := v.keyNonce(t)
	ad, text, sealed := unhex(t, v.ad), unhex(t, v.text), unhex(t, v.sealed)
	lib := Best().NewKey((*[32]byte)(key)).library()

	got, err := lib.Open(nil, nonce, sealed, ad)
	ref, ok := refOpen(key, nonce, ad, sealed)
	parts := sealParts(key, nonce, ad, text)
	if v.invalid {
		if err == nil || ok || bytes.Equal(parts, sealed) {
			t.Errorf("accepted an invalid message: x/crypto %v, reference %v, or the portable parts", err == nil, ok)
		}
		return
	}
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("x/crypto: open = %x, %v; want %x", got, err, text)
	}
	if !ok || !bytes.Equal(ref, text) {
		t.Errorf("reference: open = %x, %v; want %x", ref, ok, text)
	}
	if got := lib.Seal(nil, nonce, text, ad); !bytes.Equal(got, sealed) {
		t.Errorf("x/crypto: seal = %x, want %x", got, sealed)
	}
	if got := refSeal(key, nonce, ad, text); !bytes.Equal(got, sealed) {
		t.Errorf("reference: seal = %x, want %x", got, sealed)
	}
	if !bytes.Equal(parts, sealed) {
		t.Errorf("portable parts: seal = %x, want %x", parts, sealed)
	}
}

// sealParts seals with the portable ChaCha20 and Poly1305 what no train can express: any nonce, and additional data.
func sealParts(key, nonce, ad, text []byte) []byte {
	var s secrets
	s.cipher.init((*[32]byte)(key))
	s.cipher.seek(0, binary.LittleEndian.Uint64(nonce[4:]))
	s.cipher.state[13] = binary.LittleEndian.Uint32(nonce)
	var first [64]byte
	s.cipher.blocks(first[:])
	s.mac.init((*[32]byte)(first[:32]))
	s.mac.write(ad)
	sealed := bytes.Clone(text)
	s.cipher.xor(sealed)
	s.mac.write(sealed)
	tag := s.mac.sum(uint64(len(ad)), uint64(len(text)))
	return append(sealed, tag[:]...)
}

// check tests Seal and Open with what a train can express of a vector, n times in one train. It reports whether that was
// all of it.
func (v vector) check(t *testing.T, impl *Implementation, n int) (whole bool) {
	key, nonce := v.keyNonce(t)
	text, sealed := unhex(t, v.text), unhex(t, v.sealed)
	transport := bytes.HasPrefix(nonce, make([]byte, 4))
	whole = transport && v.ad == ""
	counter := binary.LittleEndian.Uint64(nonce[4:])

	want := refSeal(key, transportNonce(counter), nil, text)
	if whole && !v.invalid && !bytes.Equal(want, sealed) {
		t.Fatalf("the reference gave %x, want %x", want, sealed)
	}
	if transport && !v.invalid && !bytes.Equal(want[:len(text)], sealed[:len(text)]) {
		t.Fatalf("the reference gave %x, want %x and a tag", want, sealed[:len(text)])
	}

	k := impl.NewKey((*[32]byte)(key))
	var slab []byte
	var train []packet.Packet
	for range n {
		train = append(train, newPacket(len(slab), len(text), counter))
		slab = append(append(slab, text...), make([]byte, 16)...)
	}
	k.Seal(slab, train)
	for i, p := range train {
		if got := slab[p.Off : p.Off+p.Len]; !bytes.Equal(got, want) {
			t.Errorf("packet %d of %d: Seal gave %x, want %x", i, n, got, want)
		}
	}
	if v.invalid {
		// The vector's error is applied to what was sealed here.
		mistake := refSeal(key, nonce, unhex(t, v.ad), text)
		subtle.XORBytes(mistake, mistake, sealed)
		for _, p := range train {
			b := slab[p.Off : p.Off+p.Len]
			subtle.XORBytes(b, b, mistake)
		}
	}
	k.Open(slab, train)
	for i, p := range train {
		switch {
		case v.invalid:
			if p.Drop != packet.DropTag || !bytes.Equal(slab[p.Off:p.Off+len(text)], make([]byte, len(text))) {
				t.Errorf("packet %d of %d: Open gave %x, drop %v, for an invalid one", i, n, slab[p.Off:p.Off+len(text)], p.Drop)
			}
		case p.Drop != 0 || !bytes.Equal(slab[p.Off:p.Off+p.Len], text):
			t.Errorf("packet %d of %d: Open gave %x, drop %v; want %x", i, n, slab[p.Off:p.Off+p.Len], p.Drop, text)
		}
	}
	return whole
}

// checkVectors tests all implementations and their parts, and returns how many vectors a train could express completely.
func checkVectors(t *testing.T, vectors []vector) (whole int) {
	for _, v := range vectors {
		t.Run(v.name, v.checkParts)
	}
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		whole = 0
		for i, v := range vectors {
			t.Run(v.name, func(t *testing.T) {
				if v.check(t, impl, 1+i%9) {
					whole++
				}
				if !short() {
					v.check(t, impl, 1)
				}
			})
		}
	})
	return whole
}

func TestRFC8439(t *testing.T) { checkVectors(t, rfc8439) }

// RFC 8439 §A.2 #2 is a text XORed with the key stream from block 1 on, as in a train.
func TestRFC8439Text(t *testing.T) {
	const text = "Any submission to the IETF intended by the Contributor for publication as all or part of an IETF Internet-Draft " +
		"or RFC and any statement made within the context of an IETF activity is considered an \"IETF Contribution\". Such " +
		"statements include oral statements in IETF sessions, as well as written and electronic communications made at any " +
		"time or place, which are addressed to"
	want := unhex(t, "a3fbf07df3fa2fde4f376ca23e82737041605d9f4f4f57bd8cff2c1d4b7955ec2a97948bd3722915c8f3d337f7d370050e9e96d6"+
		"47b7c39f56e031ca5eb6250d4042e02785ececfa4b4bb5e8ead0440e20b6e8db09d881a7c6132f420e52795042bdfa7773d8a9051447b3291ce1"+
		"411c680465552aa6c405b7764d5e87bea85ad00f8449ed8f72d0d662ab052691ca66424bc86d2df80ea41f43abf937d3259dc4b2d0dfb48a6c91"+
		"39ddd7f76966e928e635553ba76c5c879d7b35d49eb2e62b0871cdac638939e25e8a1e0ef9d5280fa8ca328b351c3c765989cbcf3daa8b6ccc3a"+
		"af9f3979c92b3720fc88dc95ed84a1be059c6499b9fda236e7e818b04b0bc39c1e876b193bfe5569753f88128cc08aaa9b63d1a16f80ef2554d7"+
		"189c411f5869ca52c5b83fa36ff216b9c1d30062bebcfd2dc5bce0911934fda79a86f6e698ced759c3ff9b6477338f3da4f9cd8514ea9982ccaf"+
		"b341b2384dd902f3d1ab7ac61dd29c6f21ba5b862f3730e37cfdc4fd806c22f221")
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		for n := 1; n < 20; n++ {
			slab, train := newTrain(random(1), 2<<56, slices.Repeat([]int{len(text)}, n)...)
			for i, p := range train {
				copy(slab[p.Off:], text)
				train[i].SetCounter(2 << 56) // a nonce of eleven zeros and a two
			}
			impl.NewKey(&[32]byte{31: 1}).Seal(slab, train)
			for i, p := range train {
				if got := slab[p.Off : p.Off+len(text)]; !bytes.Equal(got, want) {
					t.Fatalf("packet %d of %d: %x, want %x", i, n, got, want)
				}
			}
		}
	})
}

// What OpenSSL 4.0.0 gives for n bytes, byte i being 7i+3, with testKey and a counter: the first half of the SHA-256 of
// ciphertext and tag.
var openssl = []struct {
	n       int
	counter uint64
	digest  string
}{
	{0, 0x0, "14697c1f1cff786244b3acf5696a6516"},
	{1, 0x1, "2be64ac2e491a0dc9889f40caae54f18"},
	{15, 0x2, "9f23ac629641f6518b57c405e9143416"},
	{16, 0x80000000, "cc38c60c64c4178ce9ad22dc7106a4a6"},
	{17, 0xffffffff, "e8e3e58ea1f92cd00249fe06c554a9ee"},
	{63, 0x100000000, "2ca69e630007a1696cb6e449f6cb3e58"},
	{64, 0x100000001, "5fa8702e65454974f8655e47692fdfbc"},
	{65, 0x3, "6000c6d5bbc07893c52339e72e500e9b"},
	{96, 0x4, "f2e51893664e88bfa6c828ccd3a01c73"},
	{112, 0x5, "a587df30e1574f2cf99882da00364f23"},
	{128, 0x6, "61434006cad450e23b0f0a8415459f19"},
	{191, 0x7, "69c2f9b660485d77eda43f7ebfd6f476"},
	{192, 0x1000000000000000, "46c25ff4dba62e3902542db6d5ee3802"},
	{193, 0x8, "a1d25e1a590180645545df7ca3c773f8"},
	{256, 0x9, "75ee05d0c8f9f825e1f6c5560c72d3fe"},
	{511, 0xa, "d30a202a812f2a5978ae6e078de8fb80"},
	{512, 0xb, "30ed5643eb56328e828a669fe37f7f8f"},
	{576, 0xc, "0db01fc95cda5b6082151103d663708e"},
	{1280, 0xffffffffffffdffe, "22932418321fc024f32c64e49e815034"},
	{1408, 0xd, "f2b472a86cdb683042870ba626c30ce6"},
	{1420, 0xe, "729fae00d67a9e1455742b57e7652163"},
	{1424, 0x8000000000000000, "ffde27c936f7977b7080677d52bccca0"},
	{1500, 0xffffffffffffffff, "25ff0e52a1ba61fe50c05668d2485c65"},
	{9000, 0xf, "2943ee495e6560b60e46077c40115404"},
	{65519, 0x10, "fa3353a80d67ac63415c253b2c991623"},
}

func TestOpenSSL(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		var lengths []int
		for _, v := range openssl {
			if v.n < 2000 || !short() {
				lengths = append(lengths, v.n)
			}
		}
		// All in one train, and then each in its own.
		slab, train := newTrain(random(1), 0, lengths...)
		for i := range train {
			p := &train[i]
			for j := range p.Len {
				slab[p.Off+j] = byte(7*j + 3)
			}
			p.SetCounter(openssl[i].counter)
		}
		k := impl.NewKey(&testKey)
		for _, together := range []bool{true, false} {
			work, sealed := bytes.Clone(slab), slices.Clone(train)
			if together {
				k.Seal(work, sealed)
			}
			for i := range sealed {
				p := &sealed[i]
				if !together {
					k.Seal(work, sealed[i:i+1])
				}
				sum := sha256.Sum256(work[p.Off : p.Off+p.Len])
				if got := hex.EncodeToString(sum[:16]); got != openssl[i].digest {
					t.Errorf("%d bytes with counter %#x, together %v: %s, want %s", openssl[i].n, p.Counter(), together, got, openssl[i].digest)
				}
			}
		}
	})
}

func TestHChaCha(t *testing.T) {
	// draft-irtf-cfrg-xchacha §2.2.1
	got := refHChaCha(unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"), unhex(t, "000000090000004a0000000031415927"))
	if want := unhex(t, "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestWycheproof(t *testing.T)  { wycheproof(t, "chacha20_poly1305_test.json", 12, 300, 0) }
func TestWycheproofX(t *testing.T) { wycheproof(t, "xchacha20_poly1305_test.json", 24, 300, 45) }

// wycheproof tests with the vectors of a file. It must have atLeast of them, of which trains can express whole completely.
func wycheproof(t *testing.T, file string, nonceSize, atLeast, whole int) {
	name := filepath.Join("..", "..", "..", "shared", "vectors", file)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the Wycheproof vectors are not here: no %s", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	var groups struct {
		TestGroups []struct {
			IVSize int
			Tests  []struct {
				TcID                                int
				Comment, Key, IV, AAD, Msg, Ct, Tag string
				Result                              string
			}
		}
	}
	if err := json.Unmarshal(b, &groups); err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	for _, g := range groups.TestGroups {
		for _, c := range g.Tests {
			if g.IVSize != 8*nonceSize {
				if c.Result != "invalid" {
					t.Errorf("vector %d: a nonce of %d bits is valid", c.TcID, g.IVSize)
				}
				continue // NewKey and Seal can't express another nonce size
			}
			vectors = append(vectors, vector{
				name: fmt.Sprintf("%d %s", c.TcID, strings.TrimSpace(c.Comment)),
				key:  c.Key, nonce: c.IV, ad: c.AAD, text: c.Msg, sealed: c.Ct + c.Tag, invalid: c.Result == "invalid",
			})
		}
	}
	if len(vectors) < atLeast {
		t.Errorf("%d vectors ran, want %d at least: has the file's format changed?", len(vectors), atLeast)
	}
	if got := checkVectors(t, vectors); got < whole {
		t.Errorf("trains expressed %d vectors completely, want %d at least", got, whole)
	}
}
