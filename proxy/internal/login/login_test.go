package login

import (
	"encoding/base64"
	"testing"
)

func TestMatches(t *testing.T) {
	g := New("user", "pa:ss")
	for _, tt := range []struct {
		user, password string
		want           bool
	}{
		{"user", "pa:ss", true},
		{"user", "pa:s", false},
		{"user", "", false},
		{"", "pa:ss", false},
		{"", "", false},
		{"User", "pa:ss", false},
		{"userp", "a:ss", false},
	} {
		if got := g.Matches(tt.user, tt.password); got != tt.want {
			t.Errorf("%q %q: %v", tt.user, tt.password, got)
		}
		token := base64.StdEncoding.EncodeToString([]byte(tt.user + ":" + tt.password))
		for header, ok := range map[string]bool{"Basic " + token: true, "bAsIc   " + token: true, "Basic": false, token: false, "Digest " + token: false, "Basic " + token + "x": false, "": false} {
			if got := g.MatchesBasic(header); got != (ok && tt.want) {
				t.Errorf("%q: %v", header, got)
			}
		}
	}
	if !New("", "only").Matches("", "only") || g.MatchesBasic("Basic "+base64.StdEncoding.EncodeToString([]byte("user"))) {
		t.Error("a password without a name, or a name without a password")
	}
}
