// Package login holds a user name and a password that never print themselves, and compares those of clients with them in
// constant time.
//
// A Login doesn't change, and may be used by any number of goroutines. It doesn't limit how often somebody tries.
package login

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// A Login is a user name and a password, as hashes under a key, so that comparing takes the same time for all.
type Login struct {
	key            [16]byte
	user, password [sha256.Size]byte
}

// New returns a login.
func New(user, password string) *Login {
	g := new(Login)
	rand.Read(g.key[:])
	g.user, g.password = g.hash(user), g.hash(password)
	return g
}

func (g *Login) hash(s string) [sha256.Size]byte {
	return sha256.Sum256(append(g.key[:], s...))
}

// Matches reports whether these are the name and the password.
func (g *Login) Matches(user, password string) bool {
	u, p := g.hash(user), g.hash(password)
	return subtle.ConstantTimeCompare(u[:], g.user[:])&subtle.ConstantTimeCompare(p[:], g.password[:]) == 1
}

// MatchesBasic reports whether a Proxy-Authorization has the right name and password. RFC 7617 §2.
func (g *Login) MatchesBasic(v string) bool {
	scheme, token, _ := strings.Cut(v, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false
	}
	b, err := base64.StdEncoding.DecodeString(strings.Trim(token, " "))
	user, password, ok := strings.Cut(string(b), ":")
	return err == nil && ok && g.Matches(user, password)
}
