package session

// Keypairs is the keypairs a peer holds: the previous one, with which late packets may still be received; the current
// one, which sends; and the next one, made as responder, which must not send before the initiator has used it. It is a
// value: each method returns the Keypairs after a step, and those that were retired, whose receiver indices are to be
// deleted. Whitepaper §6.3 gives the limits; the rotation is the kernel's, but for Late.
type Keypairs struct {
	Previous, Current, Next *Keypair

	// When both sides begin at once, two sessions are made in place of one, and each side sends with the one it began
	// until the next handshake. Late are older keypairs with which the peer may send until our response has reached it.
	Late    [2]*Keypair
	crossed bool // Previous is the peer's, Current ours
}

// Retired are the keypairs that one step removed. Each may be nil.
type Retired [5]*Keypair

// Initiated adds a keypair whose handshake we began: the response has come, so it is current at once.
func (k Keypairs) Initiated(fresh *Keypair) (Keypairs, Retired) {
	if !k.Crossed() {
		return k.followed(fresh)
	}
	n, retired := Keypairs{Late: [2]*Keypair{k.Current}, Previous: k.Next, Current: fresh, crossed: true}, Retired{k.Previous, k.Late[0], k.Late[1]}
	if k.crossed { // once more
		n.Late[1], retired[0] = k.Previous, nil
	}
	return n, retired
}

// followed makes fresh current and the current keypair previous.
func (k Keypairs) followed(fresh *Keypair) (Keypairs, Retired) {
	n, retired := Keypairs{Previous: k.Current, Current: fresh}, Retired{k.Previous, k.Late[0], k.Late[1]}
	if k.crossed {
		n.Late[0], retired[0] = k.Previous, nil
	}
	return n, retired
}

// Crossed reports whether the handshake of a keypair that Initiated adds now crossed one of the peer's: both began at
// once.
func (k Keypairs) Crossed() bool { return k.Next != nil }

// Responded adds a keypair whose handshake the peer began: it is next until the peer has used it. The previous keypair
// stays, which the kernel's doesn't: when both sides began at once it may be what the peer sends with, until our response
// has reached it.
func (k Keypairs) Responded(fresh *Keypair) (Keypairs, Retired) {
	retired := Retired{k.Next}
	k.Next = fresh
	return k, retired
}

// Confirmed makes the next keypair current: the initiator has used it.
func (k Keypairs) Confirmed() (Keypairs, Retired) { return k.followed(k.Next) }

// Erased removes all of them.
func (k Keypairs) Erased() (Keypairs, Retired) {
	return Keypairs{}, Retired{k.Previous, k.Current, k.Next, k.Late[0], k.Late[1]}
}
