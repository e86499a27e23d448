package wgtypes

// MayBeKey reports whether a text has something of the shape of a key in it: 32 digits of hexadecimal or base64 in a
// row. An error about such a value must not repeat it: a key may have been put in the wrong place.
func MayBeKey[T string | []byte](text T) bool {
	row := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '+', c == '/', c == '=':
			if row++; row >= 32 {
				return true
			}
		default:
			row = 0
		}
	}
	return false
}
