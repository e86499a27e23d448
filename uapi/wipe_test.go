package uapi

import (
	"log/slog"
	"testing"

	"throughline/wgtypes"
)

// shown keeps the Status that it gave away.
type shown struct {
	model
	peers []wgtypes.PeerStatus
}

func (s *shown) Status() wgtypes.Status {
	st := wgtypes.Status{PrivateKey: wgtypes.NewPrivateKey(), Peers: []wgtypes.PeerStatus{{PresharedKey: wgtypes.NewPresharedKey()}}}
	s.peers = st.Peers
	return st
}

// Serve wipes the Status that it got, once it is written.
func TestServeWipesTheStatus(t *testing.T) {
	dev := new(shown)
	served(t, dev, slog.New(slog.DiscardHandler), func(t *testing.T, l *pipes) {
		c := NewClient(l.dial())
		st, err := c.Get()
		if err != nil || st.PrivateKey.IsZero() || st.Peers[0].PresharedKey.IsZero() {
			t.Fatalf("the status has no keys, or %v", err)
		}
		c.Close()
	})
	if !dev.peers[0].PresharedKey.IsZero() {
		t.Error("the preshared key is left")
	}
}
