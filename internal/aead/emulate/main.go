//go:build linux

// Emulate runs the tests of internal/aead on an emulated CPU that has AVX-512 with IFMA, on any amd64 machine.
//
//	go -C internal/aead/emulate run . [-run regexp] [-full] [-fuzz time] [-timeout duration]
//
// It needs Debian's packages bochs, bochs-term, bochsbios and vgabios installed. It downloads a kernel, isolinux and
// genisoimage with `apt-get download` (so `apt-get update` must have been run) and unpacks them into the user's cache. It
// needs no privileges. The test binary and this program, as init, make the initramfs of a Debian kernel, which Bochs 2.7
// boots from a CD: about 700 million instructions, a minute or two, before the first test.
//
// The exit status is 0 only if the tests passed on the emulated CPU, and avx512 was usable there.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Debian's packages that are unpacked, not installed. The kernel is that which kernelMeta depends on.
var packages = []string{"isolinux", "syslinux-common", "genisoimage", "libmagic1"}

const kernelMeta = "linux-image-cloud-amd64"

// The tests of AVX-512 alone, and those of all implementations that are short enough for an emulator.
const defaultRun = "AVX512|EveryLength/avx512|RandomTrains/avx512|EveryStride/avx512|Counters/avx512|EveryTrain/avx512|" +
	"LanesIndependent/avx512|GuardPages/avx512|OpenFlippedBit/avx512|OpenTooShort/avx512|DroppedUntouched/avx512|" +
	"OutsideTheSlab/avx512|EmptyPacket/avx512|SealAdjacent/avx512|Collector/avx512|Stacks/avx512|Concurrent/avx512|" +
	"ExtremeSums/avx512|NoAllocations/avx512"

const fuzzTarget = "FuzzAVX512"

// Lines of the serial log of a success.
const (
	usableLine = "emulate: avx512 is usable: true"
	passLine   = "emulate: tests passed: true"
)

// The kernel must not use CPU features that Bochs 2.7 gets wrong: compacted XSAVE areas, whose sizes are wrong (321,
// 323), PKU (515), and FSRM (580), which the kernel uses even when it has found that fast strings are off.
const cmdline = "console=ttyS0 quiet idle=halt panic=-1 mitigations=off nokaslr random.trust_cpu=on tsc=reliable edd=off " +
	"clearcpuid=321,323,515,580 cryptomgr.notests audit=0 lsm= rdinit=/init"

// Of the CPUs with IFMA that Bochs 2.7 knows, Cannon Lake is the one without GFNI: Go's garbage collector uses GFNI where
// there is one, and crashes in Bochs. Go's math/big calculates wrong there with ADX, which boot turns off.
//
// The display is a pseudoterminal that nobody reads. When its buffer is full Bochs waits for ever, so the screen is drawn
// rarely: once in a second of emulated time, of which an hour has some hundred.
const bochsrc = `cpu: model=corei3_cnl, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
megs: 512
vga: extension=vbe, update_freq=1, realtime=0
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
display_library: term
plugin_ctrl: serial=1, speaker=0
com1: enabled=1, mode=file, dev=serial.log
sound: driver=dummy
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
log: bochs.log
clock: sync=none
panic: action=fatal
mouse: enabled=0
`

func main() {
	if os.Getpid() == 1 {
		boot()
		return
	}
	run := flag.String("run", defaultRun, "which `tests` to run, as for go test")
	fuzz := flag.String("fuzz", "", "fuzz instead, for this `time`: a number of executions like 5000x, or a duration of emulated time")
	full := flag.Bool("full", false, "without -short: takes many times as long, for a few tests chosen with -run")
	timeout := flag.Duration("timeout", 15*time.Minute, "how long all may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	args := []string{"-test.v", "-test.timeout=0", "-test.run=" + *run, fmt.Sprintf("-test.short=%t", !*full)}
	if *fuzz != "" {
		args = []string{"-test.run=^$", "-test.fuzz=^" + fuzzTarget + "$", "-test.fuzztime=" + *fuzz, "-test.fuzzcachedir=/tmp/fuzz"}
	}
	if err := emulate(ctx, args, *fuzz != ""); err != nil {
		fmt.Fprintln(os.Stderr, "emulate:", err)
		os.Exit(1)
	}
}

// emulate builds the test binary, for fuzzing or not, boots it with args, and checks its output.
func emulate(ctx context.Context, args []string, fuzz bool) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	root, err := unpack(ctx, filepath.Join(cache, "throughline-emulate"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "emulate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	test, init := filepath.Join(dir, "aead.test"), filepath.Join(dir, "init")
	build := []string{"test", "-c", "-o", test}
	if fuzz {
		build = append(build, "-fuzz="+fuzzTarget)
	}
	if err := command(ctx, "..", "go", append(build, ".")...); err != nil {
		return err
	}
	if err := command(ctx, ".", "go", "build", "-o", init, "."); err != nil {
		return err
	}
	var initrd archive
	initrd.add("proc", 0o040755, nil)
	initrd.add("dev", 0o040755, nil)
	initrd.add("tmp", 0o041777, nil)
	initrd.device("dev/console", 0o020600, 5, 1)
	initrd.device("dev/null", 0o020666, 1, 3)
	initrd.device("dev/urandom", 0o020666, 1, 9)
	initrd.add("args", 0o100644, []byte(strings.Join(args, "\n")))
	for name, from := range map[string]string{"init": init, "aead.test": test} {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		initrd.add(name, 0o100755, b)
	}
	initrd.add("TRAILER!!!", 0, nil)

	cd := filepath.Join(dir, "cd")
	if err := os.Mkdir(cd, 0o755); err != nil {
		return err
	}
	kernels, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if len(kernels) != 1 {
		return fmt.Errorf("%d kernels in %s, want one", len(kernels), root)
	}
	for name, from := range map[string]string{
		"vmlinuz":      kernels[0],
		"isolinux.bin": filepath.Join(root, "usr/lib/ISOLINUX/isolinux.bin"),
		"ldlinux.c32":  filepath.Join(root, "usr/lib/syslinux/modules/bios/ldlinux.c32"),
	} {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(cd, name), b, 0o644); err != nil {
			return err
		}
	}
	config := "DEFAULT a\nPROMPT 0\nLABEL a\n KERNEL vmlinuz\n APPEND initrd=initrd " + cmdline + "\n"
	for name, b := range map[string][]byte{
		"cd/isolinux.cfg": []byte(config), "cd/initrd": initrd.Bytes(), "bochsrc": []byte(bochsrc), "go": []byte("c\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	os.Setenv("LD_LIBRARY_PATH", filepath.Join(root, "usr/lib/x86_64-linux-gnu"))
	if err := command(ctx, dir, filepath.Join(root, "usr/bin/genisoimage"), "-quiet", "-o", "boot.iso", "-b", "isolinux.bin",
		"-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "cd"); err != nil {
		return err
	}
	os.Unsetenv("LD_LIBRARY_PATH")

	// Debian's Bochs has no display but a terminal, and starts in its debugger: script provides the terminal.
	began := time.Now()
	bochs := exec.CommandContext(ctx, "script", "-qec", "bochs -q -f bochsrc -rc go", "/dev/null")
	bochs.Dir, bochs.Env = dir, append(os.Environ(), "TERM=xterm")
	bochs.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	bochs.Cancel = func() error { return syscall.Kill(-bochs.Process.Pid, syscall.SIGTERM) }
	bochs.WaitDelay = 5 * time.Second
	screen, bochsErr := bochs.CombinedOutput()
	serial, err := os.ReadFile(filepath.Join(dir, "serial.log"))
	if err != nil {
		return fmt.Errorf("Bochs wrote no serial log: %v\n%s", bochsErr, screen)
	}
	fmt.Printf("%s\nemulate: %v in Bochs\n", bytes.ReplaceAll(serial, []byte("\r"), nil), time.Since(began).Round(time.Second))
	for _, line := range []string{passLine, usableLine} {
		if !bytes.Contains(serial, []byte(line)) {
			return errors.Join(fmt.Errorf("the log lacks the line %q", line), ctx.Err())
		}
	}
	return nil
}

// unpack returns a folder with the unpacked packages.
func unpack(ctx context.Context, cache string) (string, error) {
	root := filepath.Join(cache, "root")
	if _, err := os.Stat(filepath.Join(root, "complete")); err == nil {
		return root, nil
	}
	depends, err := exec.CommandContext(ctx, "apt-cache", "depends", kernelMeta).Output()
	kernel := regexp.MustCompile(`Depends: (linux-image-\S+)`).FindSubmatch(depends)
	if kernel == nil {
		return "", fmt.Errorf("apt-cache knows no %s (has apt-get update been run?): %v", kernelMeta, err)
	}
	if err := errors.Join(os.RemoveAll(cache), os.MkdirAll(root, 0o755)); err != nil {
		return "", err
	}
	if err := command(ctx, cache, "apt-get", append([]string{"-q", "download", string(kernel[1])}, packages...)...); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(cache, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, deb := range debs {
		if err := command(ctx, cache, "dpkg-deb", "-x", deb, root); err != nil {
			return "", err
		}
	}
	return root, os.WriteFile(filepath.Join(root, "complete"), nil, fs.FileMode(0o644))
}

// command runs a program with CGO_ENABLED=0. Its output is shown only if it fails.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// An archive is a cpio archive in the "newc" format, for the initramfs.
type archive struct{ bytes.Buffer }

func (a *archive) add(name string, mode int, body []byte) { a.entry(name, mode, 0, 0, body) }

func (a *archive) device(name string, mode, major, minor int) { a.entry(name, mode, major, minor, nil) }

func (a *archive) entry(name string, mode, major, minor int, body []byte) {
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.Len()+1, mode, 0, 0, 1, 0, len(body), 0, 0, major, minor, len(name)+1, 0, name)
	a.pad()
	a.Write(body)
	a.pad()
}

func (a *archive) pad() { a.Write(make([]byte, -a.Len()&3)) }

// boot runs as process 1 of the emulated machine.
func boot() {
	syscall.Mount("proc", "/proc", "proc", 0, "")
	args, _ := os.ReadFile("/args")
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		fmt.Printf("\nemulate: %s\n", regexp.MustCompile(`model name.*`).Find(b))
		fmt.Println("emulate:", strings.Join(regexp.MustCompile(`avx512\w+`).FindAllString(string(b), -1), " "))
	}
	began := time.Now()
	usable := exec.Command("/aead.test", "-test.run=^TestAVX512IsUsable$", "-test.v")
	usable.Env = append(os.Environ(), "THROUGHLINE_WANT_IMPLEMENTATION=avx512")
	out, err := usable.CombinedOutput()
	fmt.Printf("%semulate: avx512 is usable: %v\n", out, err == nil)
	tests := exec.Command("/aead.test", strings.Split(string(args), "\n")...)
	tests.Env = append(os.Environ(), "GODEBUG=cpu.adx=off")
	tests.Stdout, tests.Stderr = os.Stdout, os.Stdout
	err = tests.Run()
	found, _ := filepath.Glob("/testdata/fuzz/*/*") // inputs that failed
	for _, name := range found {
		b, _ := os.ReadFile(name)
		fmt.Printf("emulate: %s:\n%s\n", name, b)
	}
	fmt.Printf("emulate: tests passed: %v (%v, %v of emulated time)\n", err == nil, err, time.Since(began))
	const tcsbrk = 0x5409 // waits until the output is written
	syscall.Syscall(syscall.SYS_IOCTL, 1, tcsbrk, 1)
	time.Sleep(time.Second)
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}
