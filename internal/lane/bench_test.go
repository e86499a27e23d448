package lane

import (
	"crypto/cipher"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	benchPackets = 45
	benchSize    = 1420
)

// sealed is a stream of in-memory batches of 45 packets of 1420 bytes: what a super-packet of TCP is.
type sealed struct {
	aead cipher.AEAD
	left int
}

type slab []byte

// busy stands for a system call: it holds its processor.
func busy(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

func (s *sealed) Take(slab) (int, bool, error) {
	if s.left == 0 {
		return 0, false, errClosed
	}
	s.left--
	busy(5 * time.Microsecond)
	return benchPackets * benchSize, true, nil
}

func (s *sealed) Work(b slab) {
	var nonce [chacha20poly1305.NonceSize]byte
	for range benchPackets {
		s.aead.Seal(b[:0], nonce[:], b[:benchSize], nil)
		b = b[benchSize+chacha20poly1305.Overhead:]
	}
}

func (s *sealed) Emit(slab) { busy(5 * time.Microsecond) }

// BenchmarkLane is one ordered flow: a take of 5 us, 45 packets of 1420 bytes to seal, an emit of 5 us.
func BenchmarkLane(b *testing.B) {
	aead, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		b.Fatal(err)
	}
	for _, workers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.SetBytes(benchPackets * benchSize)
			b.ReportAllocs()
			s := &sealed{aead, b.N}
			New[slab](s, workers, 8, func() slab {
				return make(slab, benchPackets*(benchSize+chacha20poly1305.Overhead))
			}).Run()
		})
	}
}

// BenchmarkApart is the same work without a lane, by workers that share nothing and keep no order: what the machine itself
// gives to a second one. On processors that others use too it is below 2.
func BenchmarkApart(b *testing.B) {
	aead, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		b.Fatal(err)
	}
	for _, workers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.SetBytes(benchPackets * benchSize)
			var all sync.WaitGroup
			for range workers {
				all.Go(func() {
					s := &sealed{aead, b.N / workers}
					mine := make(slab, benchPackets*(benchSize+chacha20poly1305.Overhead))
					for _, _, err := s.Take(mine); err == nil; _, _, err = s.Take(mine) {
						s.Work(mine)
						s.Emit(mine)
					}
				})
			}
			all.Wait()
		})
	}
}
