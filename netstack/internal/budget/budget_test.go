package budget

import (
	"math/rand/v2"
	"testing"
)

// TestBudgetBounds opens, grows, shrinks and closes buffers at random, and checks the sum, its bound, and that each has the
// least size.
func TestBudgetBounds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := Budget{Total: 64 << 20, Least: 32 << 10}
	var sizes []int64
	highest := int64(0)
	for range 200_000 {
		switch i := rnd.IntN(max(1, len(sizes))); rnd.IntN(8) {
		case 0, 1:
			if len(sizes) < 5000 {
				sizes = append(sizes, b.Open(128<<10))
			}
		case 2:
			if len(sizes) > 0 {
				b.Close(sizes[i])
				sizes[i] = sizes[len(sizes)-1]
				sizes = sizes[:len(sizes)-1]
			}
		case 3:
			if len(sizes) > 0 && b.Short() {
				sizes[i] = b.Shrink(sizes[i])
			}
		default:
			if len(sizes) > 0 {
				sizes[i] = b.Grow(sizes[i], min(4<<20, 2*sizes[i]))
			}
		}
		sum := int64(0)
		for _, s := range sizes {
			if sum += s; s < b.Least {
				t.Fatalf("a buffer of %d bytes", s)
			}
		}
		if got := b.reserved.Load(); got != sum {
			t.Fatalf("%d bytes are reserved, want %d", got, sum)
		}
		if most := b.most() + int64(len(sizes))*b.Least; sum > most {
			t.Fatalf("%d bytes are reserved for %d buffers, want %d at most", sum, len(sizes), most)
		}
		highest = max(highest, sum)
	}
	if highest < b.Total {
		t.Errorf("at most %d bytes were reserved, less than there are", highest)
	}
}

// TestBudgetIsFair checks that one that comes late gets as much as those that took all before, if they read.
func TestBudgetIsFair(t *testing.T) {
	b := Budget{Total: 64 << 20, Least: 32 << 10}
	var sizes []int64
	for range 16 {
		size := b.Open(128 << 10)
		for {
			next := b.Grow(size, min(4<<20, 2*size))
			if next == size {
				break
			}
			size = next
		}
		sizes = append(sizes, size)
	}
	if sizes[0] != 4<<20 {
		t.Errorf("the first has %d bytes", sizes[0])
	}
	for range 16 {
		sizes = append(sizes, b.Open(128<<10))
	}
	for range 100 {
		for i := range sizes {
			if b.Short() && sizes[i] >= b.Fair() {
				sizes[i] = b.Shrink(sizes[i])
			} else {
				sizes[i] = b.Grow(sizes[i], min(4<<20, 2*sizes[i]))
			}
		}
	}
	for i, size := range sizes {
		if size < b.Fair() || size > 4*b.Fair() {
			t.Errorf("buffer %d has %d bytes, the fair share is %d", i, size, b.Fair())
		}
	}
	if b.refused.Load() == 0 {
		t.Error("nothing was refused")
	}
}

// TestBudgetReturns checks that closed buffers leave nothing.
func TestBudgetReturns(t *testing.T) {
	b := Budget{Total: 1 << 20, Least: 32 << 10}
	for range 100 {
		b.Close(b.Grow(b.Open(128<<10), 1<<20))
	}
	if b.reserved.Load() != 0 || b.buffers.Load() != 0 {
		t.Errorf("%d bytes are reserved for %d buffers", b.reserved.Load(), b.buffers.Load())
	}
}
