package conf

import "bytes"

// maxHead is how much of a file is looked at to recognise other formats, in bytes.
const maxHead = 512

// formats are the beginnings of files of other kinds, and what to do with one.
var formats = []struct{ magic, problem string }{
	{"\xff\xfe", inUTF16},
	{"\xfe\xff", inUTF16},
	{"\x89PNG", picture},
	{"\xff\xd8\xff", picture},
	{"GIF8", picture},
	{"RIFF", picture}, // WebP
	{"PK\x03\x04", archive},
	{"\x1f\x8b", archive},
	{"vpn://", appLink}, // AmneziaVPN
	{"wireguard://", appLink},
	{"wg://", appLink},
	{"%PDF", "a PDF document, not a configuration file; copy the text that it shows into a file"},
}

const (
	inUTF16 = "the file is in UTF-16, as some editors and Windows PowerShell write it; save it as UTF-8"
	picture = "a picture, not a configuration file; read its QR code, and save the text that it holds"
	archive = "an archive, not a configuration file; unpack it, and name one of the files in it"
	appLink = "a link for an app, not a configuration file; export the tunnel in wg-quick's format, which begins with [Interface]"
	webPage = "a page of the web (HTML) or XML, not a configuration file; get the file itself, perhaps after a login"
	inJSON  = "JSON, not a configuration file; save the tunnel in wg-quick's format, which begins with [Interface]"
)

// otherFormat returns the mistake of a file that begins with head and has another format, so that it isn't reported line
// after line; empty: it may be a configuration file.
func otherFormat(head []byte) string {
	for _, f := range formats {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f.problem
		}
	}
	if len(head) >= 4 && (head[0] == 0) != (head[1] == 0) && (head[2] == 0) != (head[3] == 0) {
		return inUTF16 // ASCII in it, without a mark
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte(bom)), space+"\n")
	switch {
	case len(text) == 0:
	case text[0] == '<':
		return webPage
	case text[0] == '{':
		return inJSON
	}
	return ""
}
