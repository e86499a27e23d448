package wgtypes_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"throughline/wgtypes"
)

// The key pair of RFC 7748 §6.1, Alice's.
func TestPublicKeyVector(t *testing.T) {
	var k wgtypes.PrivateKey
	if _, err := hex.Decode(k[:], []byte("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")); err != nil {
		t.Fatal(err)
	}
	const want = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
	if got := k.Public().Hex(); got != want {
		t.Errorf("public key %s, want %s", got, want)
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	private, preshared := wgtypes.NewPrivateKey(), wgtypes.NewPresharedKey()
	config := wgtypes.Config{PrivateKey: &private, Peers: []wgtypes.PeerConfig{{PresharedKey: &preshared}}}
	status := wgtypes.Status{PrivateKey: private, Peers: []wgtypes.PeerStatus{{PresharedKey: preshared}}}

	var out bytes.Buffer
	for _, v := range []any{private, &private, preshared, &preshared, config, &config, status, &status, []any{private, preshared}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	said := strings.ToLower(out.String())
	for _, k := range [][]byte{private[:], preshared[:]} {
		spellings := []string{
			hex.EncodeToString(k[:6]),
			strings.Trim(fmt.Sprint(k[:6]), "[]"),
			strings.ReplaceAll(strings.Trim(fmt.Sprintf("%#v", k[:6]), "[]byte{}"), " ", ""),
		}
		for _, s := range spellings {
			if strings.Contains(said, strings.ToLower(s)) {
				t.Errorf("a secret was printed, as %q", s)
			}
		}
	}
	for _, s := range []string{private.Base64(), preshared.Base64()} {
		if strings.Contains(out.String(), s[:8]) {
			t.Error("a secret was printed in base64")
		}
	}
	if !strings.Contains(out.String(), "(hidden)") {
		t.Error("nothing was printed: the test sees nothing")
	}
}

func TestParseKeys(t *testing.T) {
	k := wgtypes.NewPrivateKey()
	back, err := wgtypes.ParsePrivateKey(k.Base64())
	if err != nil || back != k {
		t.Fatalf("a private key read back differs (%v)", err)
	}
	pub, err := wgtypes.ParsePublicKey(k.Public().String())
	if err != nil || pub != k.Public() {
		t.Fatalf("a public key read back differs (%v)", err)
	}
	for _, bad := range []string{"", "x", strings.Repeat("A", 43), strings.Repeat("A", 44), k.Base64() + "=", k.Base64()[:43], k.Base64() + "\n "} {
		if _, err := wgtypes.ParsePrivateKey(bad); err == nil {
			t.Errorf("%q passes for a key", bad)
		} else if len(bad) > 8 && strings.Contains(err.Error(), bad) {
			t.Error("the error repeats what may be a secret")
		}
	}
}

func TestClamping(t *testing.T) {
	var raw wgtypes.PrivateKey
	for i := range raw {
		raw[i] = 0xff
	}
	k := raw.Clamped()
	if k[0] != 0xf8 || k[31] != 0x7f {
		t.Errorf("clamped to % x … % x", k[0], k[31])
	}
	if !(wgtypes.PrivateKey{}).Clamped().IsZero() {
		t.Error("the zero key, which stands for none, was clamped")
	}
	if !(wgtypes.PrivateKey{}).Public().IsZero() {
		t.Error("the zero key has a public key")
	}
}
