package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	wgstack "golang.zx2c4.com/wireguard/tun/netstack"

	"throughline"
	"throughline/netstack"
)

// throughlinePair makes a pair of this project's stacks.
func throughlinePair() (*pair, error) {
	keys := [2]throughline.PrivateKey{throughline.NewPrivateKey(), throughline.NewPrivateKey()}
	addrs := [2]netip.Addr{netip.MustParseAddr(dialFrom), netip.MustParseAddr(dialed)}
	var stacks [2]*netstack.Stack
	var devs [2]*throughline.Device
	for i := range devs {
		var err error
		if stacks[i], err = netstack.New(netstack.Options{Addresses: addrs[i : i+1], MTU: mtu}); err != nil {
			return nil, err
		}
		if devs[i], err = throughline.New(throughline.Options{TUN: stacks[i]}); err != nil {
			return nil, err
		}
		if err := devs[i].Configure(throughline.Config{PrivateKey: &keys[i]}); err != nil {
			return nil, err
		}
		if err := devs[i].Up(); err != nil {
			return nil, err
		}
	}
	for i := range devs {
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), devs[1-i].Status().ListenPort)
		peer := throughline.PeerConfig{
			PublicKey: keys[1-i].Public(), Endpoint: &to, AllowedIPs: []netip.Prefix{netip.PrefixFrom(addrs[1-i], 32)},
		}
		if err := devs[i].Configure(throughline.Config{Peers: []throughline.PeerConfig{peer}}); err != nil {
			return nil, err
		}
	}
	return &pair{
		dial:   func(address string) (net.Conn, error) { return stacks[0].Dial("tcp", address) },
		listen: func(port int) (net.Listener, error) { return stacks[1].Listen("tcp", fmt.Sprintf(":%d", port)) },
		close:  func() { devs[0].Close(); devs[1].Close() },
	}, nil
}

// wireguardPair makes a pair of wireguard-go's stacks, as its examples do.
func wireguardPair() (*pair, error) {
	keys := [2]throughline.PrivateKey{throughline.NewPrivateKey(), throughline.NewPrivateKey()}
	addrs := [2]netip.Addr{netip.MustParseAddr(dialFrom), netip.MustParseAddr(dialed)}
	var nets [2]*wgstack.Net
	var devs [2]*device.Device
	for i := range devs {
		t, n, err := wgstack.CreateNetTUN(addrs[i:i+1], nil, mtu)
		if err != nil {
			return nil, err
		}
		nets[i] = n
		devs[i] = device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
		if err := devs[i].IpcSet("private_key=" + hex.EncodeToString(keys[i][:])); err != nil {
			return nil, err
		}
		if err := devs[i].Up(); err != nil {
			return nil, err
		}
	}
	for i := range devs {
		port, err := listenPort(devs[1-i])
		if err != nil {
			return nil, err
		}
		public := keys[1-i].Public()
		if err := devs[i].IpcSet(fmt.Sprintf("public_key=%s\nendpoint=127.0.0.1:%s\nallowed_ip=%v/32\n",
			hex.EncodeToString(public[:]), port, addrs[1-i])); err != nil {
			return nil, err
		}
	}
	return &pair{
		dial: func(address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			return nets[0].DialTCPAddrPort(to)
		},
		listen: func(port int) (net.Listener, error) { return nets[1].ListenTCP(&net.TCPAddr{Port: port}) },
		close:  func() { devs[0].Close(); devs[1].Close() },
	}, nil
}

// listenPort returns the UDP port of a device of wireguard-go's.
func listenPort(d *device.Device) (string, error) {
	conf, err := d.IpcGet()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(conf) {
		if port, ok := strings.CutPrefix(line, "listen_port="); ok {
			return strings.TrimSpace(port), nil
		}
	}
	return "", errors.New("no listen_port")
}
