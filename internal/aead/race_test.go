//go:build race

package aead

func init() { raceEnabled = true }
