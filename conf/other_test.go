package conf

import (
	"strings"
	"testing"
	"unicode/utf16"
)

// TestOtherFormats checks that a file of another kind is one mistake, which names it.
func TestOtherFormats(t *testing.T) {
	wide := func(text string, little bool) string {
		var b strings.Builder
		for _, u := range utf16.Encode([]rune(text)) {
			if little {
				b.Write([]byte{byte(u), byte(u >> 8)})
			} else {
				b.Write([]byte{byte(u >> 8), byte(u)})
			}
		}
		return b.String()
	}
	file := "[Interface]\r\nPrivateKey = " + private + "\r\n[Peer]\r\nPublicKey = " + public + "\r\n"
	for text, want := range map[string]string{
		wide("\ufeff"+file, true):                                "the file is in UTF-16",
		wide("\ufeff"+file, false):                               "the file is in UTF-16",
		wide(file, true):                                         "the file is in UTF-16",
		wide(file, false):                                        "the file is in UTF-16",
		"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\n\x00":              "a picture",
		"\xff\xd8\xff\xe0\x00\x10JFIF\n":                         "a picture",
		"GIF89a\n\x00":                                           "a picture",
		"RIFF\x00\x00\x00\x00WEBP\n":                             "a picture",
		"PK\x03\x04\x14\x00\nx":                                  "an archive",
		"\x1f\x8b\x08\x00\nx":                                    "an archive",
		"%PDF-1.7\nx\n":                                          "a PDF document",
		"\ufeff\r\n <!DOCTYPE html>\n<html>\n<body>Log in\n":     "a page of the web",
		"<?xml version=\"1.0\"?>\n<plist>\n":                     "a page of the web",
		"{\n \"interface\": {\n \"privateKey\": \"x\"\n}\n}":     "JSON",
		"vpn://AAAA\n":                                           "a link for an app",
		"\x7fELF\x02\x01\x01\x00\x00\n\xff\xfe\n\x00\nx\n":       "not text in UTF-8",
		strings.ReplaceAll(file, "\r\n", "\r"):                   "the lines end in carriage returns alone",
		"[Interface]\nPostUp = caf\xe9\nPostUp = \xe9\n[\xe9]\n": "not text in UTF-8",
	} {
		_, err := Parse("f", strings.NewReader(text))
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), private[:20]) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}
