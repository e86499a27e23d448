//go:build race

package aead

func init() { raced = true }
