package session

// Keypairs is the trio of keypairs a peer holds: the previous one, from which late packets may still come; the current
// one, which sends; and the next one, made as responder, which must not send before the initiator has used it. It is a
// value: each step returns the trio after it and the keypairs that were retired, whose receiver indices are to be deleted.
// Whitepaper §6.3 gives the limits; the rotation is the kernel's, but for Late.
type Keypairs struct {
	Previous, Current, Next *Keypair

	// When both sides begin at once, two sessions come in place of one: each side sends with that which it began, until
	// another takes the place of both. So more are kept that the peer may send with until our answer has reached it.
	Late    [2]*Keypair
	crossed bool // Previous is the peer's, Current ours
}

// Retired are the keypairs that one step took out of the trio. Each may be nil.
type Retired [5]*Keypair

// Initiated brings in a keypair whose handshake we began: the response has come, so it may be used at once.
func (k Keypairs) Initiated(fresh *Keypair) (Keypairs, Retired) {
	if !k.Crossed() {
		return k.followed(fresh)
	}
	n, gone := Keypairs{Late: [2]*Keypair{k.Current}, Previous: k.Next, Current: fresh, crossed: true}, Retired{k.Previous, k.Late[0], k.Late[1]}
	if k.crossed { // once more
		n.Late[1], gone[0] = k.Previous, nil
	}
	return n, gone
}

// followed makes a keypair current that takes the place of what is.
func (k Keypairs) followed(fresh *Keypair) (Keypairs, Retired) {
	n, gone := Keypairs{Previous: k.Current, Current: fresh}, Retired{k.Previous, k.Late[0], k.Late[1]}
	if k.crossed {
		n.Late[0], gone[0] = k.Previous, nil
	}
	return n, gone
}

// Crossed reports whether, were a keypair whose handshake we began brought in now, both sides had begun at once.
func (k Keypairs) Crossed() bool { return k.Next != nil }

// Responded brings in a keypair whose handshake the peer began: it waits as next until the peer has used it. The
// previous keypair stays, which the kernel's doesn't: when both sides began at once it may be what the peer sends with,
// until our response has reached it.
func (k Keypairs) Responded(fresh *Keypair) (Keypairs, Retired) {
	gone := Retired{k.Next}
	k.Next = fresh
	return k, gone
}

// Confirmed makes the next keypair current: the initiator has used it.
func (k Keypairs) Confirmed() (Keypairs, Retired) { return k.followed(k.Next) }

// Erased lets all of them go.
func (k Keypairs) Erased() (Keypairs, Retired) {
	return Keypairs{}, Retired{k.Previous, k.Current, k.Next, k.Late[0], k.Late[1]}
}
