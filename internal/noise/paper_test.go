package noise

import (
	stdhmac "crypto/hmac"
	"encoding/binary"
	"errors"
	"hash"
	"math/big"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"throughline/wgtypes"
)

// The second implementation: the whitepaper's formulas of §5.4 to §5.4.5 typed off one after the other, with the
// paper's names, the standard library's HMAC, and X25519 from RFC 7748 over math/big. It shares no line with the first.

func paperHash(parts ...[]byte) []byte {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(err)
	}
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func paperHMAC(key, in []byte) []byte {
	m := stdhmac.New(func() hash.Hash { h, _ := blake2s.New256(nil); return h }, key)
	m.Write(in)
	return m.Sum(nil)
}

func paperKDF(n int, key, in []byte) [][]byte {
	t0 := paperHMAC(key, in)
	var out [][]byte
	var last []byte
	for i := 1; i <= n; i++ {
		last = paperHMAC(t0, append(append([]byte{}, last...), byte(i)))
		out = append(out, last)
	}
	return out
}

func paperSeal(key, plain, ad []byte) []byte {
	a, err := chacha20poly1305.New(key)
	if err != nil {
		panic(err)
	}
	return a.Seal(nil, make([]byte, 12), plain, ad)
}

func paperOpen(key, sealed, ad []byte) ([]byte, error) {
	a, err := chacha20poly1305.New(key)
	if err != nil {
		panic(err)
	}
	return a.Open(nil, make([]byte, 12), sealed, ad)
}

var (
	paperP   = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	paperA24 = big.NewInt(121665)
	nine     = append([]byte{9}, make([]byte, 31)...)
)

// paperX25519 is RFC 7748 §5 to the letter.
func paperX25519(scalar, u []byte) []byte {
	reverse := func(b []byte) []byte {
		r := make([]byte, 32)
		for i := range b {
			r[31-i] = b[i]
		}
		return r
	}
	kb := append([]byte{}, scalar...)
	kb[0] &= 248
	kb[31] &= 127
	kb[31] |= 64
	ub := append([]byte{}, u...)
	ub[31] &= 127
	k := new(big.Int).SetBytes(reverse(kb))
	x1 := new(big.Int).SetBytes(reverse(ub))
	x1.Mod(x1, paperP)

	mod := func(z *big.Int) *big.Int { return z.Mod(z, paperP) }
	mul := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
	add := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Add(a, b)) }
	sub := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Sub(a, b)) }

	x2, z2, x3, z3 := big.NewInt(1), big.NewInt(0), new(big.Int).Set(x1), big.NewInt(1)
	swap := uint(0)
	for t := 254; t >= 0; t-- {
		kt := k.Bit(t)
		if swap^kt == 1 {
			x2, x3, z2, z3 = x3, x2, z3, z2
		}
		swap = kt
		a := add(x2, z2)
		aa := mul(a, a)
		b := sub(x2, z2)
		bb := mul(b, b)
		e := sub(aa, bb)
		da := mul(sub(x3, z3), a)
		cb := mul(add(x3, z3), b)
		s, d := add(da, cb), sub(da, cb)
		x3, z3 = mul(s, s), mul(x1, mul(d, d))
		x2, z2 = mul(aa, bb), mul(e, add(aa, mul(paperA24, e)))
	}
	if swap == 1 {
		x2, z2 = x3, z3
	}
	out := mul(x2, new(big.Int).Exp(z2, new(big.Int).Sub(paperP, big.NewInt(2)), paperP))
	return reverse(out.FillBytes(make([]byte, 32)))
}

// A paperSide is one side of a handshake by the paper.
type paperSide struct {
	spriv, spub  []byte // S of this side
	epriv, epub  []byte // E of this side
	remote       []byte // S of the other
	remoteE      []byte
	psk          []byte
	index, other uint32
	c, h         []byte
}

func newPaperSide(spriv, epriv, remote, psk []byte, index uint32) *paperSide {
	return &paperSide{
		spriv: spriv, spub: paperX25519(spriv, nine), epriv: epriv, epub: paperX25519(epriv, nine),
		remote: remote, psk: psk, index: index,
	}
}

func (p *paperSide) begin(responder []byte) {
	p.c = paperHash([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"))
	p.h = paperHash(p.c, []byte("WireGuard v1 zx2c4 Jason@zx2c4.com"))
	p.h = paperHash(p.h, responder)
}

func (p *paperSide) initiation(ts []byte) []byte {
	p.begin(p.remote)
	msg := binary.LittleEndian.AppendUint32([]byte{1, 0, 0, 0}, p.index)
	p.c = paperKDF(1, p.c, p.epub)[0]
	msg = append(msg, p.epub...)
	p.h = paperHash(p.h, p.epub)
	k := paperKDF(2, p.c, paperX25519(p.epriv, p.remote))
	p.c = k[0]
	static := paperSeal(k[1], p.spub, p.h)
	msg = append(msg, static...)
	p.h = paperHash(p.h, static)
	k = paperKDF(2, p.c, paperX25519(p.spriv, p.remote))
	p.c = k[0]
	stamp := paperSeal(k[1], ts, p.h)
	msg = append(msg, stamp...)
	p.h = paperHash(p.h, stamp)
	return append(msg, make([]byte, 32)...)
}

func (p *paperSide) consumeInitiation(msg []byte) (ts []byte, err error) {
	if len(msg) != 148 || binary.LittleEndian.Uint32(msg) != 1 {
		return nil, errors.New("not an initiation")
	}
	p.begin(p.spub)
	p.other = binary.LittleEndian.Uint32(msg[4:])
	p.remoteE = msg[8:40]
	p.c = paperKDF(1, p.c, p.remoteE)[0]
	p.h = paperHash(p.h, p.remoteE)
	k := paperKDF(2, p.c, paperX25519(p.spriv, p.remoteE))
	p.c = k[0]
	static, err := paperOpen(k[1], msg[40:88], p.h)
	if err != nil {
		return nil, err
	}
	p.remote = static
	p.h = paperHash(p.h, msg[40:88])
	k = paperKDF(2, p.c, paperX25519(p.spriv, p.remote))
	p.c = k[0]
	ts, err = paperOpen(k[1], msg[88:116], p.h)
	p.h = paperHash(p.h, msg[88:116])
	return ts, err
}

func (p *paperSide) response() []byte {
	msg := binary.LittleEndian.AppendUint32([]byte{2, 0, 0, 0}, p.index)
	msg = binary.LittleEndian.AppendUint32(msg, p.other)
	p.c = paperKDF(1, p.c, p.epub)[0]
	msg = append(msg, p.epub...)
	p.h = paperHash(p.h, p.epub)
	p.c = paperKDF(1, p.c, paperX25519(p.epriv, p.remoteE))[0]
	p.c = paperKDF(1, p.c, paperX25519(p.epriv, p.remote))[0]
	k := paperKDF(3, p.c, p.psk)
	p.c = k[0]
	p.h = paperHash(p.h, k[1])
	empty := paperSeal(k[2], nil, p.h)
	msg = append(msg, empty...)
	p.h = paperHash(p.h, empty)
	return append(msg, make([]byte, 32)...)
}

func (p *paperSide) consumeResponse(msg []byte) error {
	if len(msg) != 92 || binary.LittleEndian.Uint32(msg) != 2 || binary.LittleEndian.Uint32(msg[8:]) != p.index {
		return errors.New("not our response")
	}
	p.other = binary.LittleEndian.Uint32(msg[4:])
	p.remoteE = msg[12:44]
	p.c = paperKDF(1, p.c, p.remoteE)[0]
	p.h = paperHash(p.h, p.remoteE)
	p.c = paperKDF(1, p.c, paperX25519(p.epriv, p.remoteE))[0]
	p.c = paperKDF(1, p.c, paperX25519(p.spriv, p.remoteE))[0]
	k := paperKDF(3, p.c, p.psk)
	p.c = k[0]
	p.h = paperHash(p.h, k[1])
	_, err := paperOpen(k[2], msg[44:60], p.h)
	p.h = paperHash(p.h, msg[44:60])
	return err
}

func (p *paperSide) keys(initiator bool) Keys {
	k := paperKDF(2, p.c, nil)
	if initiator {
		return Keys{Send: [32]byte(k[0]), Receive: [32]byte(k[1])}
	}
	return Keys{Send: [32]byte(k[1]), Receive: [32]byte(k[0])}
}

// The first implementation initiates to the second.
func TestInitiateToPaper(t *testing.T) {
	t.Parallel()
	for seed := range byte(4) {
		b := newBed(t, seed)
		p := newPaperSide(b.rpriv[:], randomBytes(seed+100, 32), nil, b.psk[:], 0xdeadbeef)

		i, msg := b.initiate(t)
		ts, err := p.consumeInitiation(msg)
		if err != nil || Timestamp(ts) != b.ts {
			t.Fatalf("the paper reads timestamp %x, %v, want %x", ts, err, b.ts)
		}
		if wgtypes.PublicKey(p.remote) != b.i.Public() || p.other != b.iIndex {
			t.Fatalf("the paper reads static key %x and index %x", p.remote, p.other)
		}
		keys, remote, err := i.ConsumeResponse(p.response(), b.i, &b.psk)
		if err != nil {
			t.Fatalf("the paper's response: %v", err)
		}
		if remote != 0xdeadbeef || keys != p.keys(false).swapped() {
			t.Fatalf("index %x; the keys differ from the paper's: %t", remote, keys != p.keys(false).swapped())
		}
	}
}

// The second implementation initiates to the first.
func TestRespondToPaper(t *testing.T) {
	t.Parallel()
	for seed := range byte(4) {
		b := newBed(t, seed)
		public := b.r.Public()
		p := newPaperSide(b.ipriv[:], randomBytes(seed+100, 32), public[:], b.psk[:], 0xfeedface)

		r, err := ConsumeInitiation(p.initiation(b.ts[:]), b.r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Sender() != 0xfeedface || r.Static() != b.i.Public() {
			t.Fatalf("read index %x and static key %x", r.Sender(), r.Static())
		}
		if ts, err := r.Verify(&b.ss); err != nil || ts != b.ts {
			t.Fatalf("read timestamp %x, %v, want %x", ts, err, b.ts)
		}
		keys, msg := b.respond(t, r)
		if err := p.consumeResponse(msg); err != nil {
			t.Fatalf("the paper refuses the response: %v", err)
		}
		if p.other != b.rIndex || keys != p.keys(true).swapped() {
			t.Fatalf("index %x; the keys differ from the paper's: %t", p.other, keys != p.keys(true).swapped())
		}
	}
}

// swapped returns the other side's view.
func (k Keys) swapped() Keys { return Keys{Send: k.Receive, Receive: k.Send} }
