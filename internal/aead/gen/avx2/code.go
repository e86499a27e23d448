package main

// A code is a sequence of instructions not yet emitted.
type code []func()

func (c *code) add(f func()) { *c = append(*c, f) }

func (c code) emit() {
	for _, f := range c {
		f()
	}
}

// interleave emits a with b spread evenly over it.
func interleave(a, b code) {
	j := 0
	for i, f := range a {
		f()
		for ; j*len(a) < (i+1)*len(b); j++ {
			b[j]()
		}
	}
}
