package wgtypes

import (
	"strings"
	"testing"
)

func TestMayBeKey(t *testing.T) {
	key := NewPrivateKey()
	for text, want := range map[string]bool{
		"":                                            false,
		key.Base64():                                  true,
		PublicKey(key).Hex():                          true,
		strings.ToUpper(PublicKey(key).Hex()):         true,
		"vpn." + key.Base64()[:43] + ".example":       true,
		key.Base64()[1:]:                              true,
		strings.Repeat("+/=aZ0", 6)[:32]:              true,
		strings.Repeat("+/=aZ0", 6)[:31]:              false,
		strings.Repeat("0123456789abcdef.", 9):        false,
		"2001:db8:1234:5678:9abc:def0:1234:5678":      false,
		"2001:0db8:0000:0000:0000:0000:0000:0001/128": false,
		strings.Repeat("ä", 40):                       false,
	} {
		if got := MayBeKey(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
		if got := MayBeKey([]byte(text)); got != want {
			t.Errorf("bytes of %q: %v", text, got)
		}
	}
}
