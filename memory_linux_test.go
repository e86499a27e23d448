package throughline_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"throughline"
	"throughline/internal/noise"
	"throughline/internal/wire"
	"throughline/tun/tuntest"
	"throughline/uapi"
)

// Whitepaper §6.3 has keys erased from memory. Here a process with two devices makes a session, sends packets, is asked for
// its status and then told to erase; and its parent, which knows all secrets since it chose them, looks for them in every
// writable byte of it. The process itself knows no more of them than the devices do: its randomness is a stream that the
// parent computes, too, and the keys come by the configuration socket.

// memoryEnv makes the test's program the process that is looked into; its value is the cipher implementation.
const memoryEnv = "THROUGHLINE_TEST_MEMORY"

// stream is what the process has for randomness: byte i of the n-th read. It is written straight to where it goes.
func stream(n uint64, i int) byte {
	x := (n*64 + uint64(i) + 1) * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return byte(x >> 24)
}

type countedReads struct{ turn, n chan uint64 }

func (c countedReads) Read(b []byte) (int, error) {
	n := <-c.turn
	for i := range b {
		b[i] = stream(n, i)
	}
	if len(b) == wire.KeySize { // an ephemeral key
		c.n <- n
	}
	c.turn <- n + 1
	return len(b), nil
}

// TestMemoryOfKeysProcess is the process that TestMemoryOfKeys looks into.
func TestMemoryOfKeysProcess(t *testing.T) {
	impl := os.Getenv(memoryEnv)
	if impl == "" {
		t.Skip("it is run by TestMemoryOfKeys")
	}
	reads := countedReads{make(chan uint64, 1), make(chan uint64, 100)}
	reads.turn <- 1
	rand.Reader = reads
	var devs [2]*throughline.Device
	var tuns [2]*tuntest.Device
	for i := range devs {
		tuns[i] = tuntest.New(1420)
		var err error
		if devs[i], err = throughline.New(throughline.Options{TUN: tuns[i], CipherImplementation: impl}); err != nil {
			t.Fatal(err)
		}
		defer devs[i].Close()
		l, err := net.Listen("unix", os.Args[len(os.Args)-2+i])
		if err != nil {
			t.Fatal(err)
		}
		go uapi.Serve(t.Context(), l, devs[i], nil)
		if err := devs[i].Up(); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("memory: ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "traffic":
			for n := range 400 {
				from := n / 2 % 2
				tuns[from].Outbound(innerPacket(from, 20+n*7%1400))
				select {
				case <-tuns[1-from].Inbound():
				case <-time.After(10 * time.Second):
					t.Fatal("nothing comes through the tunnel")
				}
			}
			fmt.Print("memory: ephemeral")
			for range len(reads.n) {
				fmt.Print(" ", <-reads.n)
			}
			fmt.Println()
			continue
		case "down":
			devs[0].Down()
			devs[1].Down()
		}
		runtime.GC()
		runtime.GC()
		fmt.Println("memory: done")
	}
}

// innerPacket is an IPv4 packet of n bytes from device from to the other.
func innerPacket(from, n int) []byte {
	p := make([]byte, n)
	p[0], p[8], p[9] = 0x45, 64, 17
	p[2], p[3] = byte(n>>8), byte(n)
	copy(p[12:], []byte{10, 0, 0, byte(1 + from), 10, 0, 0, byte(2 - from)})
	return p
}

// memoryProcess is the process as its parent has it.
type memoryProcess struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.Writer
	out     *bufio.Scanner
	sockets [2]string
}

func startMemoryProcess(t *testing.T, impl string) *memoryProcess {
	dir := t.TempDir()
	p := &memoryProcess{t: t, sockets: [2]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	p.cmd = exec.CommandContext(ctx, os.Args[0], "-test.run=^TestMemoryOfKeysProcess$", p.sockets[0], p.sockets[1])
	// Known, and not to be had from here: a signal that preempts a goroutine leaves its registers, and so maybe half a key, on
	// the signal's stack; and a stack that the collector shrinks in the middle of a handshake leaves its copy. SECURITY.md
	// tells of both. Whether they happen is luck, so here they don't.
	p.cmd.Env = append(os.Environ(), memoryEnv+"="+impl, "GODEBUG=asyncpreemptoff=1,gcshrinkstackoff=1")
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	p.answer()
	return p
}

// answer returns what the process says next.
func (p *memoryProcess) answer() string {
	p.t.Helper()
	for p.out.Scan() {
		if s, ok := strings.CutPrefix(p.out.Text(), "memory: "); ok {
			return s
		}
		p.t.Log(p.out.Text())
	}
	p.t.Fatal("the process ended")
	return ""
}

func (p *memoryProcess) do(what string) string {
	p.t.Helper()
	fmt.Fprintln(p.in, what)
	return p.answer()
}

func (p *memoryProcess) configure(i int, c throughline.Config) {
	p.t.Helper()
	conn, err := net.Dial("unix", p.sockets[i])
	if err != nil {
		p.t.Fatal(err)
	}
	client := uapi.NewClient(conn)
	defer client.Close()
	if err := client.Set(c); err != nil {
		p.t.Fatal(err)
	}
}

func (p *memoryProcess) status(i int) throughline.Status {
	p.t.Helper()
	conn, err := net.Dial("unix", p.sockets[i])
	if err != nil {
		p.t.Fatal(err)
	}
	client := uapi.NewClient(conn)
	defer client.Close()
	st, err := client.Get()
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}

// find returns where the keys are in the process's writable memory, whole or half, in bytes or hexadecimal. The first and
// the last byte of a key, which clamping changes, aren't looked at.
func (p *memoryProcess) find(keys map[string][]byte) map[string][]string {
	mappings, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	defer mem.Close()
	found := make(map[string][]string)
	looked := 0
	for line := range strings.Lines(string(mappings)) {
		f := strings.Fields(line)
		from, to, _ := strings.Cut(f[0], "-")
		begin, _ := strconv.ParseUint(from, 16, 64)
		end, _ := strconv.ParseUint(to, 16, 64)
		if !strings.HasPrefix(f[1], "rw") || end-begin > 1<<30 { // so large are the race detector's only
			continue
		}
		b := make([]byte, end-begin)
		n, _ := mem.ReadAt(b, int64(begin))
		looked += n
		for name, key := range keys {
			text := []byte(hex.EncodeToString(key))
			for _, needle := range [][]byte{key[1:16], key[16:31], text[2:32], text[32:62]} {
				for at := 0; ; at++ {
					i := bytes.Index(b[at:n], needle)
					if i < 0 {
						break
					}
					at += i
					found[name] = append(found[name], fmt.Sprintf("%s at %#x %s", name, begin+uint64(at), strings.Join(f[5:], " ")))
				}
			}
		}
	}
	if looked < 1<<20 {
		p.t.Fatalf("looked at %d bytes: the walk is broken", looked)
	}
	return found
}

func TestMemoryOfKeys(t *testing.T) {
	if os.Getenv(memoryEnv) != "" {
		t.Skip("this is the process that is looked into")
	}
	if raceDetector {
		t.Skip("under the race detector stack frames are larger than those that are cleared")
	}
	impls := throughline.CipherImplementations()
	for _, impl := range slices.Compact([]string{impls[0], "xcrypto", "portable"}) {
		t.Run(impl, func(t *testing.T) { testMemoryOfKeys(t, impl) })
	}
}

func testMemoryOfKeys(t *testing.T, impl string) {
	p := startMemoryProcess(t, impl)
	private := [2]throughline.PrivateKey{throughline.NewPrivateKey(), throughline.NewPrivateKey()}
	preshared := throughline.NewPresharedKey()
	for i := range private {
		p.configure(i, throughline.Config{PrivateKey: &private[i]})
	}
	for i := range private {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p.status(1-i).ListenPort)
		p.configure(i, throughline.Config{Peers: []throughline.PeerConfig{{
			PublicKey: private[1-i].Public(), PresharedKey: &preshared, Endpoint: &to,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(2 - i)}), 32)},
		}}})
	}
	var ephemeral [][]byte
	for n := range strings.FieldsSeq(strings.TrimPrefix(p.do("traffic"), "ephemeral")) {
		e := make([]byte, wire.KeySize)
		read, err := strconv.ParseUint(n, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for i := range e {
			e[i] = stream(read, i)
		}
		ephemeral = append(ephemeral, e)
	}
	if len(ephemeral) != 2 {
		t.Fatalf("%d ephemeral keys: one handshake has two", len(ephemeral))
	}
	for range 3 {
		if st := p.status(0); st.PrivateKey != private[0] || len(st.Peers) != 1 || st.Peers[0].PresharedKey != preshared {
			t.Fatal("the status has other keys")
		}
	}
	static, keys := transportKeys(t, private, &preshared, ephemeral)
	session := map[string][]byte{"session key 1": keys.Send[:], "session key 2": keys.Receive[:]}
	ephemerals := map[string][]byte{"ephemeral key 1": ephemeral[0], "ephemeral key 2": ephemeral[1]}
	shared := map[string][]byte{"static-static secret": static[:]}
	psk := map[string][]byte{"preshared key": preshared[:]}
	own := map[string][]byte{"private key 1": private[0][:], "private key 2": private[1][:]}
	gone := func(when string, secrets ...map[string][]byte) {
		t.Helper()
		all := make(map[string][]byte)
		for _, s := range secrets {
			maps.Copy(all, s)
		}
		for _, places := range p.find(all) {
			for _, at := range places {
				t.Errorf("%s: there is still %s", when, at)
			}
		}
	}

	// What is in use must be found, or the test looks for the wrong thing.
	p.do("gc")
	for _, secrets := range []map[string][]byte{session, shared, psk, own} {
		found := p.find(secrets)
		for name := range secrets {
			if len(found[name]) == 0 {
				t.Errorf("%s is in use, and isn't found", name)
			}
		}
	}
	gone("the handshake is done", ephemerals)
	p.do("down")
	gone("down", session, ephemerals, shared)
	for i := range private {
		p.configure(i, throughline.Config{ReplacePeers: true})
	}
	p.do("gc")
	gone("the peers are removed", psk)
	for i := range private {
		p.configure(i, throughline.Config{PrivateKey: new(throughline.NewPrivateKey())})
	}
	p.do("gc")
	gone("other private keys are set", session, ephemerals, shared, psk, own)
}

// transportKeys returns what the two devices derive: the static-static secret, and the transport keys of the handshake with
// these ephemeral keys.
func transportKeys(t *testing.T, private [2]throughline.PrivateKey, psk *throughline.PresharedKey, ephemeral [][]byte) (ss [32]byte, keys noise.Keys) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, err := noise.NewIdentity(&private[0])
	check(err)
	b, err := noise.NewIdentity(&private[1])
	check(err)
	ss, err = a.SharedSecret(b.Public())
	check(err)
	ei, err := noise.NewEphemeral(bytes.NewReader(ephemeral[0]))
	check(err)
	er, err := noise.NewEphemeral(bytes.NewReader(ephemeral[1]))
	check(err)
	initiation, response := make([]byte, wire.InitiationSize), make([]byte, wire.ResponseSize)
	_, err = noise.Initiate(initiation, a, b.Public(), &ss, ei, 1, noise.TAI64N(time.Now())) // the keys don't depend on the time
	check(err)
	r, err := noise.ConsumeInitiation(initiation, b)
	check(err)
	_, err = r.Verify(&ss)
	check(err)
	keys, err = r.Respond(response, psk, er, 2)
	check(err)
	return ss, keys
}
