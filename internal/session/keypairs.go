package session

// Keypairs is the trio of keypairs a peer holds: the previous one, from which late packets may still come; the current
// one, which sends; and the next one, made as responder, which must not send before the initiator has used it. It is a
// value: each step returns the trio after it and the keypairs that fell out, whose receiver indices are to be forgotten.
// Whitepaper §6.3 gives the limits; the rotation is the kernel's.
type Keypairs struct {
	Previous, Current, Next *Keypair
}

// Gone are the keypairs that fell out of a trio in one step. Each may be nil.
type Gone [3]*Keypair

// Initiated brings in a keypair whose handshake we began: the response has come, so it may be used at once.
func (k Keypairs) Initiated(fresh *Keypair) (Keypairs, Gone) {
	if k.Next != nil {
		// The responder's keypair, never confirmed, is newer than the current one: late packets would use it.
		return Keypairs{Previous: k.Next, Current: fresh}, Gone{k.Previous, k.Current}
	}
	return Keypairs{Previous: k.Current, Current: fresh}, Gone{k.Previous}
}

// Responded brings in a keypair whose handshake the peer began: it waits as next until the peer has used it. The
// previous keypair stays, which the kernel's doesn't: when both sides began at once it may be what the peer sends with,
// until our response has reached it.
func (k Keypairs) Responded(fresh *Keypair) (Keypairs, Gone) {
	return Keypairs{Previous: k.Previous, Current: k.Current, Next: fresh}, Gone{k.Next}
}

// Confirmed makes the next keypair current: the initiator has used it.
func (k Keypairs) Confirmed() (Keypairs, Gone) {
	return Keypairs{Previous: k.Current, Current: k.Next}, Gone{k.Previous}
}

// Erased lets all three go.
func (k Keypairs) Erased() (Keypairs, Gone) {
	return Keypairs{}, Gone{k.Previous, k.Current, k.Next}
}
