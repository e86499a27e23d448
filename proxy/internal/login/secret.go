package login

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret is a user name or a password. Formatted with any verb, in JSON and in slog it shows "(hidden)".
type Secret string

// Format writes "(hidden)" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "(hidden)") }

// MarshalText returns "(hidden)".
func (Secret) MarshalText() ([]byte, error) { return []byte("(hidden)"), nil }

// LogValue returns "(hidden)".
func (Secret) LogValue() slog.Value { return slog.StringValue("(hidden)") }
