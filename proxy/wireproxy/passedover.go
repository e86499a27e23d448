package wireproxy

import (
	"slices"

	"throughline/conf"
)

// appKeys are those that WireGuard's app for Android adds to [Interface]: which apps use the tunnel. They are read and passed
// over.
var appKeys = []string{"IncludedApplications", "ExcludedApplications"}

// PassedOver returns the keys of a file that [Load] has read which have no meaning for a proxy, since there is no interface:
// each once, in the order of the documentation. Those whose values are the defaults aren't among them.
func PassedOver(f *conf.File) (keys []string) {
	i := &f.Interface
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"FwMark", i.Mark != nil && *i.Mark != 0},
		{"Table", i.Table != "" && i.Table != "auto"},
		{"PreUp", len(i.PreUp) > 0},
		{"PostUp", len(i.PostUp) > 0},
		{"PreDown", len(i.PreDown) > 0},
		{"PostDown", len(i.PostDown) > 0},
		{"SaveConfig", i.SaveConfig},
		{appKeys[0], slices.ContainsFunc(i.Extra, func(e conf.Entry) bool { return e.Is(appKeys[0]) })},
		{appKeys[1], slices.ContainsFunc(i.Extra, func(e conf.Entry) bool { return e.Is(appKeys[1]) })},
	} {
		if k.set {
			keys = append(keys, k.name)
		}
	}
	return keys
}
