package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"throughline/proxy"
)

// loopback is the host's network, which tells the address of its listener.
type loopback struct {
	proxy.Host
	at chan net.Addr
}

func (n loopback) Listen(network, address string) (net.Listener, error) {
	ln, err := n.Host.Listen(network, address)
	if err == nil {
		n.at <- ln.Addr()
	}
	return ln, err
}

// A program serves an HTTP proxy without a file. Its targets would be reached through a tunnel, like a netstack.Stack;
// here the host stands in for it.
func Example() {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello", r.Method) }))
	defer site.Close()

	tunnel, host := proxy.Host{}, loopback{at: make(chan net.Addr, 1)}
	cfg := &proxy.Config{Sections: []proxy.Section{{
		Kind:        proxy.HTTP,
		BindAddress: "127.0.0.1:0",
		Username:    "user",
		Password:    "secret",
		IdleTimeout: proxy.DefaultIdleTCP,
	}}}
	if err := cfg.Check(); err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- proxy.Run(ctx, cfg, tunnel, host, slog.New(slog.DiscardHandler)) }()

	through := http.ProxyURL(&url.URL{Scheme: "http", Host: (<-host.at).String(), User: url.UserPassword("user", "secret")})
	client := http.Client{Transport: &http.Transport{Proxy: through}, Timeout: 10 * time.Second}
	resp, err := client.Get(site.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(string(body))
	resp.Body.Close()

	stop() // Run returns when every connection is closed
	fmt.Println("the proxy ended:", <-ended)
	// Output:
	// hello GET
	// the proxy ended: <nil>
}
