package allowedips

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type listed struct{ prefixes []netip.Prefix }

// The lists are what the table says, after any changes.
func TestListsAgreeWithTheTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table Table[*listed]
		owners := []*listed{{}, {}, {}}
		of := map[netip.Prefix]*listed{}
		for range rapid.IntRange(1, 4).Draw(t, "edits") {
			e := table.BeginLists(func(v *listed) *[]netip.Prefix { return &v.prefixes })
			for range rapid.IntRange(0, 12).Draw(t, "changes") {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 3).Draw(t, "prefix"))}), 16)
				v := owners[rapid.IntRange(0, 2).Draw(t, "owner")]
				switch rapid.IntRange(0, 3).Draw(t, "change") {
				case 0:
					e.Delete(p, v)
					if of[p] == v {
						delete(of, p)
					}
				case 1:
					e.DeleteAll(v)
					for p, o := range of {
						if o == v {
							delete(of, p)
						}
					}
				default:
					e.Insert(p, v)
					of[p] = v
				}
			}
			e.Commit()
			for i, v := range owners {
				var want []netip.Prefix
				for p, o := range of {
					if o == v {
						want = append(want, p)
					}
				}
				got := slices.SortedFunc(slices.Values(v.prefixes), netip.Prefix.Compare)
				slices.SortFunc(want, netip.Prefix.Compare)
				if !slices.Equal(got, want) {
					t.Fatalf("the list of %d is %v, want %v", i, got, want)
				}
			}
			for p, v := range of {
				if got, ok := table.Lookup(p.Addr()); !ok || got != v {
					t.Fatalf("the table has another owner of %v", p)
				}
			}
		}
	})
}
