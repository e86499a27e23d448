package wireproxy

import (
	"fmt"
	"strings"
	"testing"
)

func TestPassedOver(t *testing.T) {
	for text, want := range map[string]string{
		"FwMark = off\nTable = auto\nSaveConfig = false\nPostUp =": "[]",
		"SaveConfig = true\nPostDown = d\nPreDown = c\nPostUp = b\nPreUp = a\nPreUp = a\nTable = 5\nFwMark = 1\nexcludedapplications = x\nIncludedApplications = y": "[FwMark Table PreUp PostUp PreDown PostDown SaveConfig IncludedApplications ExcludedApplications]",
	} {
		f, err := Parser(nil).Parse("p", strings.NewReader("[Interface]\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(PassedOver(f)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
