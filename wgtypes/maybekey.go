package wgtypes

// MayBeKey reports whether a text has something of the shape of a key in it: 32 digits of hexadecimal or base64 in a
// row. What a program says of a wrong value must not have the value then: somebody may have put a key in a wrong place.
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
