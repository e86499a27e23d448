package conf

import (
	"errors"
	"fmt"
)

// maxMistakes bounds the mistakes that are reported.
const maxMistakes = 20

// Mistakes is what a parser found wrong with a file. Of many mistakes it reports the first 20, and how many more there
// are. The zero Mistakes has none. It belongs to one goroutine.
type Mistakes struct {
	list []error
	more int // those that aren't reported
}

// Add adds a mistake to those found before. A nil error is none.
func (m *Mistakes) Add(err error) {
	switch {
	case err == nil:
	case len(m.list) == maxMistakes:
		m.more++
	default:
		m.list = append(m.list, err)
	}
}

// Err returns the mistakes, one a line, in the order in which they were added; a single one as it is; nil when there
// are none.
func (m *Mistakes) Err() error {
	switch {
	case m.more > 0:
		return errors.Join(append(m.list[:maxMistakes:maxMistakes], fmt.Errorf("and %d more mistakes", m.more))...)
	case len(m.list) == 1:
		return m.list[0]
	}
	return errors.Join(m.list...)
}
