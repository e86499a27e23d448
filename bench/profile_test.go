package main

import (
	"strings"
	"testing"
)

// The output of perf report, shortened.
const perfText = `# To display the perf.data header info, please use --header/--header-only options.
#
# Overhead|Shared Object|Symbol
 22.50% |throughline      |[.] golang.org/x/crypto/chacha20poly1305.chacha20Poly1305Seal.abi0
 20.00% |[kernel.kallsyms]|[k] finish_task_switch.isra.0
 7.00%  |[kernel.kallsyms]|[k] _copy_from_iter
 2.50%  |throughline      |[.] throughline/tun/offload.(*Merger).Merge
 30.00% |[kernel.kallsyms]|[k] tcp_rcv_established
 18.00% |[kernel.kallsyms]|[k] a|b

`

func TestParsePerf(t *testing.T) {
	symbols, err := parsePerf(perfText)
	if err != nil {
		t.Fatal(err)
	}
	if len(symbols) != 6 || symbols[0].Symbol != "tcp_rcv_established" || symbols[5].Percent != 2.5 || symbols[5].Object != "throughline" {
		t.Errorf("got %+v", symbols)
	}
	p := &profile{Bed: bedVeth, Program: "throughline", Test: "tcp1", Groups: group(symbols), Top: symbols}
	golden(t, "profile.txt", p.text())
	for _, bad := range []string{"", "# nothing\n", "12%|x\n", "many|a|b\n"} {
		if _, err := parsePerf(bad); err == nil {
			t.Errorf("parsePerf(%q): no error", bad)
		}
	}
}

func TestClassify(t *testing.T) {
	for symbol, want := range map[string]string{
		"k:_copy_to_iter":                "copies",
		"k:skb_copy_datagram_iter":       "copies",
		"k:finish_task_switch.isra.0":    "scheduler",
		"k:do_epoll_pwait.part.0":        "scheduler",
		"k:try_to_wake_up":               "scheduler",
		"k:futex_wait":                   "scheduler",
		"k:__udp_enqueue_schedule_skb":   "kernel network",
		"k:skb_segment":                  "kernel network",
		"k:tun_do_read":                  "kernel network",
		"k:__netif_receive_skb_one_core": "kernel network",
		"k:veth_xmit":                    "kernel network",
		"k:handle_softirqs":              "kernel network",
		"k:___sys_recvmsg":               "kernel network",
		"k:_raw_spin_unlock_irqrestore":  "kernel, other",
		"k:do_syscall_64":                "kernel, other",
		"k:kfree":                        "kernel, other",
		"u:golang.org/x/crypto/chacha20poly1305.chacha20Poly1305Open.abi0": "crypto",
		"u:throughline/internal/aead.(*Key).Seal":                          "crypto",
		"u:runtime.memmove":                                                   "copies",
		"u:throughline/tun/offload.Sum":                                       "copies",
		"u:golang.zx2c4.com/wireguard/tun.checksumNoFold":                     "copies",
		"u:runtime.schedule":                                                  "scheduler",
		"u:runtime.chanrecv":                                                  "scheduler",
		"u:sync.(*Mutex).Lock":                                                "scheduler",
		"u:runtime.mallocgc":                                                  "memory",
		"u:runtime.gcDrain":                                                   "memory",
		"u:internal/runtime/syscall/linux.Syscall6":                           "Go and its library",
		"u:internal/poll.(*FD).Read":                                          "Go and its library",
		"u:net.(*UDPAddr).AddrPort":                                           "Go and its library",
		"u:golang.org/x/net/internal/socket.recvmmsg":                         "Go and its library",
		"u:throughline/internal/engine.(*outbound).Take":                      "its own code",
		"u:golang.zx2c4.com/wireguard/device.(*Peer).RoutineSequentialSender": "its own code",
		"u:main.main":                                                         "its own code",
	} {
		where, name, _ := strings.Cut(symbol, ":")
		if got := classify(name, where == "k"); got != want {
			t.Errorf("%s is %q, want %q", symbol, got, want)
		}
	}
}
