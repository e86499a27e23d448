package receivers

import (
	"sync"
	"testing"
)

// Indices come and go from several goroutines; each finds its own, and deletes no other's.
func TestConcurrent(t *testing.T) {
	type entry struct{ owner int }
	var table Table[entry]
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			own := func(e *entry) bool { return e.owner == g }
			for range 500 {
				i := table.Insert(&entry{g})
				if e := table.Lookup(i); e == nil || e.owner != g {
					t.Errorf("index %d doesn't lead to its owner", i)
				}
				table.Delete(i, func(e *entry) bool { return e.owner == g+1 })
				fresh := &entry{g}
				if !table.Replace(i, fresh) || table.Lookup(i) != fresh {
					t.Errorf("index %d wasn't replaced: somebody else has deleted it", i)
				}
				table.Delete(i, own)
				if table.Lookup(i) != nil || table.Replace(i, fresh) {
					t.Errorf("index %d is there after it was deleted", i)
				}
			}
		})
	}
	wg.Wait()
	if n := table.Len(); n != 0 {
		t.Errorf("%d indices are left", n)
	}
}
