// Package browser tests the demo's page in a browser: with mouse and keyboard, in the light and the dark colour scheme, on a
// desktop's screen and a telephone's.
package browser

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// waitLimit bounds waits that take a second on an idle machine.
const waitLimit = 90 * time.Second

// program is the path of the program that is built for the tests.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "throughline-browser-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "browser:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "throughline")
		build := exec.Command("go", "build", "-o", program, "./cmd/throughline")
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "browser: build throughline: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// A demo is a running demo.
type demo struct {
	cmd *exec.Cmd
	url string
}

// startDemo starts a demo. When the test ends it gets SIGINT, and must end with success.
func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	d := &demo{cmd: exec.Command(program, append([]string{"demo"}, args...)...)}
	d.cmd.Stderr = os.Stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	output := make(chan string, 1000)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case output <- lines.Text():
			default:
			}
		}
		close(output)
	}()
	t.Cleanup(func() { d.end(t) })
	for line := range output {
		if d.url = regexp.MustCompile(`http://\S+/`).FindString(line); d.url != "" {
			return d
		}
	}
	t.Fatal("the demo ended before it printed the page's URL")
	return nil
}

func (d *demo) end(t *testing.T) {
	t.Helper()
	if d.cmd.ProcessState != nil {
		return
	}
	d.cmd.Process.Signal(os.Interrupt)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("the demo did not end cleanly: %v", err)
	}
}

// A tab is the demo's page in a browser of its own, with a new profile. Errors in it are kept.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	troubles []string // guarded by mu
}

// flags are Chromium's command line: without windows, and without requests of its own.
var flags = []chromedp.ExecAllocatorOption{
	chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.DisableGPU,
	chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
	chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
	chromedp.Flag("disable-extensions", true), chromedp.Flag("metrics-recording-only", true),
	chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
}

// A look is a window's size and a colour scheme.
type look struct {
	name          string
	width, height int64
	dark          bool
}

var looks = []look{
	{"light", 1280, 900, false}, {"dark", 1280, 900, true}, {"tablet", 768, 900, false},
	{"narrow", 360, 740, false}, {"narrow-dark", 360, 740, true},
}

// open opens the demo's page. Without a browser the test is skipped, or fails in CI.
func open(t *testing.T, d *demo, l look) *tab {
	t.Helper()
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("no Chromium on this machine")
		}
		t.Skip("no Chromium on this machine")
	}
	opts := append(slices.Clone(flags), chromedp.ExecPath(browser), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(int(l.width), int(l.height)))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // its own sandbox refuses root
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*waitLimit)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	p := &tab{t: t, url: d.url}
	p.ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(p.record))
	t.Cleanup(cancel)
	p.do("open the page", l.emulate(), chromedp.Navigate(d.url))
	return p
}

// record keeps messages in the browser's console, and requests that fail or go to other hosts.
func (p *tab) record(ev any) {
	trouble := ""
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		trouble = "exception: " + ev.ExceptionDetails.Text + " " + fmt.Sprint(ev.ExceptionDetails.Exception)
	case *runtime.EventConsoleAPICalled:
		trouble = fmt.Sprintf("console: %v: %s", ev.Type, ev.Args[0].Value)
	case *cdplog.EventEntryAdded:
		trouble = fmt.Sprintf("log: %v: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL)
	case *network.EventLoadingFailed:
		trouble = "failed request: " + ev.ErrorText
	case *network.EventResponseReceived:
		if ev.Response.Status >= 400 {
			trouble = fmt.Sprintf("status %d: %s", ev.Response.Status, ev.Response.URL)
		}
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(ev.Request.URL, p.url) && !strings.HasPrefix(ev.Request.URL, "data:") {
			trouble = "a request to somebody else: " + ev.Request.URL
		}
	}
	if trouble != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.troubles = append(p.troubles, trouble)
	}
}

// wantNoErrors checks that there was no error so far.
func (p *tab) wantNoErrors() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, trouble := range p.troubles {
		p.t.Error(trouble)
	}
}

// do performs actions in the tab. If one fails, the test ends.
func (p *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// eval returns the value of a JavaScript expression on the page.
func eval[T any](p *tab, js string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](js))
	if err != nil {
		p.t.Fatalf("%s: %v", js, err)
	}
	return v
}

func (p *tab) text(id string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf("document.getElementById(%q).textContent", id))
}

// eventually calls try until it returns nil.
func (p *tab) eventually(try func() error) {
	p.t.Helper()
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatal(err)
		}
	}
}

// waitText waits until the text of an element matches.
func (p *tab) waitText(id, pattern string) {
	p.t.Helper()
	want := regexp.MustCompile(pattern)
	p.eventually(func() error {
		if text := p.text(id); !want.MatchString(text) {
			return fmt.Errorf("%s is %q, want %s", id, text, want)
		}
		return nil
	})
}

// waitChange waits until the text of each element has changed.
func (p *tab) waitChange(ids ...string) {
	p.t.Helper()
	was := map[string]string{}
	for _, id := range ids {
		was[id] = p.text(id)
	}
	for _, id := range ids {
		p.eventually(func() error {
			if now := p.text(id); now == was[id] {
				return fmt.Errorf("%s stays %q", id, now)
			}
			return nil
		})
	}
}

// picture saves a picture of the whole page among the test's artifacts, and logs its name.
func (p *tab) picture(name string) {
	p.t.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.ArtifactDir(), name+".png")
	if err := os.WriteFile(file, png, 0o644); err != nil {
		p.t.Fatal(err)
	}
	p.t.Log(file)
}

const number = `[0-9.]+\x{202f}`

// figures waits until every figure on the page is a number, and changes.
func (p *tab) figures() {
	p.t.Helper()
	p.waitText("down", `^`+number+`[kMG]?bit/s$`)
	p.waitText("up", `^`+number+`[kMG]?bit/s$`)
	p.waitText("rtt", `^`+number+`(µs|ms)$`)
	p.waitText("rttmore", `^median `+number)
	p.waitText("shakes", `^1$`)
	p.waitText("shakesmore", `^the last [0-9]+\x{202f}s ago`)
	p.waitText("door", `^127\.0\.0\.1:[0-9]+$`)
	p.waitText("near", `^10\.128\.0\.1$`)
	p.waitText("far", `^10\.128\.0\.2$`)
	p.waitText("foot", `throughline .* on linux/`)
	p.waitChange("down", "up", "upsum", "rtt", "shakesmore", "foot")
}

// walks waits until each step that is always timed has a time, both ways.
func (p *tab) walks() {
	p.t.Helper()
	for _, id := range []string{"walkdown", "walkup"} {
		p.eventually(func() error {
			rows := eval[[][]string](p, fmt.Sprintf(`[...document.querySelectorAll("#%s tbody tr")].map(r => [...r.cells].map(c => c.textContent))`, id))
			if len(rows) != 7 {
				return fmt.Errorf("%s has %d rows", id, len(rows))
			}
			for _, row := range rows {
				always := !strings.HasPrefix(row[0], "read") && !strings.HasPrefix(row[0], "receive")
				if !regexp.MustCompile(`^`+number+`(ns|µs|ms)$`).MatchString(row[1]) && (always || row[1] != "–") {
					return fmt.Errorf("%s: %q", id, row)
				}
			}
			return nil
		})
	}
}

// TestPage asks: does the page show a tunnel at work, and does each of its controls work?
func TestPage(t *testing.T) {
	for name, args := range map[string][]string{"stacks in user space": nil, "TUNs": {"--tun"}} {
		t.Run(name, func(t *testing.T) {
			if args != nil && exec.Command("unshare", "--net", "true").Run() != nil {
				if out, err := exec.Command("unshare", "--map-root-user", "--net", "true").CombinedOutput(); err != nil {
					if os.Getenv("CI") == "true" {
						t.Fatalf("no namespaces: %s", out)
					}
					t.Skipf("no namespaces: %s", out)
				}
			}
			p := open(t, startDemo(t, args...), looks[0])
			p.figures()
			p.walks()
			want := "in user space"
			if args != nil {
				want = "TUN interface of the kernel's"
			}
			p.waitText("ends", want)
			if rows := p.text("peers"); strings.Contains(rows, "its namespace") != (args != nil) || strings.Contains(rows, "undefined") {
				t.Errorf("the peers are shown as %q", rows)
			}
			for _, button := range eval[[]string](p, `[...document.querySelectorAll("button[data-load]")].map(b => b.textContent)`) {
				p.do("click", chromedp.Click(chromedp.Search(fmt.Sprintf(`//button[text()=%q]`, button))))
				way, size := "down", "256 MiB"
				if strings.HasPrefix(button, "Upload") {
					way = "up"
				}
				if strings.Contains(button, "512 MiB") {
					size = "512 MiB"
				}
				p.eventually(func() error {
					says := strings.ReplaceAll(p.text("loadsays"), "\u202f", " ")
					if !strings.HasPrefix(says, way+", ") || !strings.Contains(says, size+" at ") || !strings.HasSuffix(says, "every byte intact") {
						return fmt.Errorf("%s: %q", button, says)
					}
					return nil
				})
			}
			p.walks()
			if n := eval[int](p, `document.querySelectorAll("#plot polyline").length`); n != 2 {
				t.Errorf("%d lines in the plot", n)
			}
			// The means since the start, and back. They differ once the first load is older than ten seconds.
			p.eventually(func() error {
				if age := eval[float64](p, `shown.uptime`); age < 12 {
					return fmt.Errorf("the page stays %v s old", age)
				}
				return nil
			})
			for _, c := range [][2]string{{"#always", "walk_all"}, {"#lately", "walk"}} {
				p.do("click", chromedp.Click(chromedp.CSS(c[0])))
				if !eval[bool](p, fmt.Sprintf(`document.querySelector(%q).ariaPressed === "true" && document.querySelectorAll("[aria-pressed=true]").length === 1 &&
					nanos(shown[%q].down.reduce((sum, s) => sum + (s.packets && s.ns / s.packets), 0)) === document.querySelector("#walkdown .sum td").textContent`, c[0], c[1])) {
					t.Errorf("%s shows %q", c[0], p.text("walkdown"))
				}
			}
			p.wantNoErrors()
			p.picture("worked-" + strings.ReplaceAll(name, " ", "-"))
		})
	}
}

// emulate gives the page this size and colour scheme.
func (l look) emulate() chromedp.Action[chromedp.Void] {
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	return chromedp.Steps(chromedp.EmulateViewport(l.width, l.height), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

// TestLooks asks: is the page readable in both colour schemes and at every width, and does everything fit?
func TestLooks(t *testing.T) {
	p := open(t, startDemo(t), looks[0])
	p.figures()
	p.do("click", chromedp.Click(chromedp.CSS("button[data-load]")))
	p.waitText("loadsays", "intact$")
	p.walks()
	for _, l := range looks {
		p.do(l.name, l.emulate())
		p.waitChange("foot") // drawn anew since
		p.picture(l.name)
		if dark := eval[bool](p, `matchMedia("(prefers-color-scheme: dark)").matches`); dark != l.dark {
			t.Fatalf("%s: dark is %v", l.name, dark)
		}
		if wide := eval[int64](p, `document.documentElement.scrollWidth`); wide > l.width {
			t.Errorf("%s: the page is %d wide, the window %d", l.name, wide, l.width)
		}
		for _, e := range eval[[]string](p, overflowing) {
			t.Errorf("%s: doesn't fit: %s", l.name, e)
		}
		for _, e := range eval[[]string](p, faint) {
			t.Errorf("%s: too little contrast: %s", l.name, e)
		}
		if small := eval[float64](p, `Math.min(...[...document.querySelectorAll("#plot text")].map(e => e.getBoundingClientRect().height))`); small < 11 {
			t.Errorf("%s: the plot's text is %v px high", l.name, small)
		}
	}
	p.wantNoErrors()
}

// overflowing lists the elements whose text is wider than they are, or that reach beyond the window or the plot.
const overflowing = `[...document.querySelectorAll("body *")].filter(e =>
	e.matches("svg text") ? e.getBoundingClientRect().left < e.ownerSVGElement.getBoundingClientRect().left || e.getBoundingClientRect().right > e.ownerSVGElement.getBoundingClientRect().right :
	e.checkVisibility() && !e.closest("svg") && (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && getComputedStyle(e).display !== "inline" ||
	e.getBoundingClientRect().right > innerWidth + 1)).map(e => e.tagName + "#" + e.id + "." + (e.className.baseVal ?? e.className) + ": " + e.textContent.slice(0, 60))`

// faint lists texts whose contrast with their background is below WCAG's 4.5.
const faint = `(() => {
	const parse = c => { const v = c.match(/[\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
	const lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
	const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
	const out = [];
	for (const e of document.querySelectorAll("body *")) {
		if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest("script,style")) continue;
		const style = getComputedStyle(e), a = lum(parse(e.closest("svg") ? style.fill : style.color)), b = lum(behind(e));
		const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (contrast < 4.5) out.push(contrast.toFixed(2) + " " + e.tagName + "#" + e.id + "." + (e.className.baseVal ?? e.className) + ": " + e.textContent.slice(0, 40));
	}
	return out;
})()`

// TestKeyboard asks: can everything be done without a mouse, and is the focus visible?
func TestKeyboard(t *testing.T) {
	p := open(t, startDemo(t), looks[0])
	p.figures()
	var seen []string
	for range eval[int](p, `document.querySelectorAll("button, a[href]:not(noscript a), input, select").length`) {
		p.do("press Tab", chromedp.KeyEvent(kb.Tab))
		seen = append(seen, eval[string](p, `document.activeElement.textContent`))
		if width := eval[float64](p, `parseFloat(getComputedStyle(document.activeElement).outlineWidth) * (getComputedStyle(document.activeElement).outlineStyle !== "none")`); width < 2 {
			t.Errorf("%q has the focus, with an outline of %v px", seen[len(seen)-1], width)
		}
	}
	if all := eval[[]string](p, `[...document.querySelectorAll("button")].map(b => b.textContent)`); !slices.Equal(seen, all) {
		t.Errorf("Tab leads to %q, want %q", seen, all)
	}
	p.do("press a key", chromedp.KeyEvent(kb.Enter)) // the last: since the start
	if !eval[bool](p, `document.activeElement.ariaPressed === "true"`) {
		t.Error("Enter presses nothing")
	}
	p.do("focus", chromedp.Focus(chromedp.CSS("button[data-load]")), chromedp.KeyEvent(" "), chromedp.KeyEvent(" ")) // the second does nothing
	p.waitText("loadsays", "every byte intact$")
	if !eval[bool](p, `document.activeElement.matches("button[data-load]")`) {
		t.Error("a load takes the focus away")
	}
	p.wantNoErrors()
}

// TestPageStaysStill asks: can a key be selected and copied while the figures change?
func TestPageStaysStill(t *testing.T) {
	// A load that is over between two of the page's reports shows no progress: fast machines are slowed down.
	t.Setenv("THROUGHLINE_CIPHER_IMPLEMENTATION", "portable")
	t.Setenv("GOMAXPROCS", "1")
	p := open(t, startDemo(t), looks[0])
	p.figures()
	key := eval[string](p, `(() => { const td = document.querySelector("#peers td.n"); getSelection().selectAllChildren(td); return td.textContent; })()`)
	place := eval[[]float64](p, tops)
	p.waitChange("down", "rtt", "foot")
	if got := eval[string](p, `getSelection().toString()`); len(key) != 44 || strings.TrimSpace(got) != key {
		t.Errorf("the selection is %q now, was %q", got, key)
	}
	p.do("click", chromedp.Click(chromedp.CSS("button[data-load]")))
	p.waitText("moving", "of 256")
	for _, e := range eval[[]string](p, faint) {
		t.Errorf("too little contrast while a load runs: %s", e)
	}
	for i, top := range eval[[]float64](p, tops) {
		if math.Abs(top-place[i]) > 1 {
			t.Errorf("heading %d moves from %v to %v", i, place[i], top)
		}
	}
	p.waitText("loadsays", "intact$")
	p.wantNoErrors()
}

const tops = `[...document.querySelectorAll("h2")].map(e => e.getBoundingClientRect().top + scrollY)`

// TestPageOutlivesTheDemo asks: does the page say that its figures are old when the demo has ended?
func TestPageOutlivesTheDemo(t *testing.T) {
	d := startDemo(t)
	p := open(t, d, looks[3])
	p.figures()
	p.wantNoErrors()
	hidden := func() bool { return eval[bool](p, `document.getElementById("lost").hidden`) }
	if !hidden() {
		t.Error("the page says that the demo is lost, though it is running")
	}
	d.end(t)
	p.eventually(func() error {
		if hidden() {
			return errors.New("the page doesn't say that the demo is lost")
		}
		return nil
	})
	if text := p.text("down"); !regexp.MustCompile(number).MatchString(text) {
		t.Errorf("the last figure is gone: %q", text)
	}
	p.picture("ended")
}
