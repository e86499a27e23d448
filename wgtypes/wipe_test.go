package wgtypes_test

import (
	"testing"

	"throughline/wgtypes"
)

func TestWipe(t *testing.T) {
	private, preshared := wgtypes.NewPrivateKey(), wgtypes.NewPresharedKey()
	c := wgtypes.Config{PrivateKey: &private, Peers: []wgtypes.PeerConfig{{}, {PresharedKey: &preshared}}}
	c.Wipe()
	if !private.IsZero() || !preshared.IsZero() {
		t.Error("Config.Wipe leaves keys")
	}
	new(wgtypes.Config).Wipe()
	s := wgtypes.Status{PrivateKey: wgtypes.NewPrivateKey(), Peers: []wgtypes.PeerStatus{{PresharedKey: wgtypes.NewPresharedKey()}}}
	s.Wipe()
	if !s.PrivateKey.IsZero() || !s.Peers[0].PresharedKey.IsZero() {
		t.Error("Status.Wipe leaves keys")
	}
}
