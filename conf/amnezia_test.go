package conf

import (
	"fmt"
	"strings"
	"testing"
)

// TestAmnezia checks that AmneziaWG's keys are one mistake, whatever their number and place, and what it tells to do.
func TestAmnezia(t *testing.T) {
	const before, after = "[Interface]\nPrivateKey = " + private + "\n", "[Peer]\nPublicKey = " + public + "\n"
	const plain, other = "with these values the peer understands WireGuard, too: take these lines out", "the peer doesn't understand WireGuard with these values: get a file for WireGuard from where this one comes from, or use AmneziaWG"
	for keys, want := range map[string]string{
		"Jc = 4\nJmin = 40\nJmax = 70\nS1 = 0\nS2 = 0\nH1 = 1\nH2 = 2\nH3 = 3\nH4 = 4": "Jc, Jmin, Jmax, S1, S2, H1, H2, H3, H4|" + plain,
		"Jc = 4\nJC = 4\nI1 = <b 0x00>\nI2 =\nItime = 60":                              "Jc, JC, I1, I2, Itime|" + plain,
		"S1 =\nH1 = 1":          "S1, H1|" + plain,
		"S1 = 15\nS2 = 20":      "S1, S2|" + other,
		"S4 = 1":                "S4|" + other,
		"H1 = 5-9":              "H1|" + other,
		"H2 = 1":                "H2|" + other,
		"H3 = 1234567890\nJ1=x": "H3, J1|" + other,
	} {
		names, what, _ := strings.Cut(want, "|")
		line, _, _ := strings.Cut(keys, "\n")
		want := fmt.Sprintf("f:3:%d: %s: keys of AmneziaWG, which disguises WireGuard, and isn't spoken here; %s", strings.Index(line+" ", "=")+2+strings.Count(line, "= "), names, what)
		_, err := Parse("f", strings.NewReader(before+keys+"\n"+after))
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", keys, err, want)
		}
	}
	_, err := Parse("f", strings.NewReader("[Interface]\nJc = 1\nMTU = x\n"+after+"AdvancedSecurity = on\nNonsense = 1\n"))
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 3 || !strings.Contains(lines[0], "f:2:6: Jc, AdvancedSecurity: keys of AmneziaWG") || !strings.Contains(lines[1], "MTU") || !strings.Contains(lines[2], "Nonsense") {
		t.Errorf("other mistakes, in the order of the file: %v", err)
	}
	_, err = Parse("f", strings.NewReader("[Interface]\nJc = 1\n\x00"))
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 2 || !strings.Contains(lines[0], "Jc: keys of AmneziaWG") {
		t.Errorf("a file that ends early: %v", err)
	}
}
