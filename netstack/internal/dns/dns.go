// Package dns is a stub resolver: it asks servers for the addresses of names, through connections that it is given.
//
// No answer is cached, all of it is safe for concurrent use, and no goroutine is started. A malformed message is an error.
//
// Queries carry EDNS (RFC 6891). A server that refuses it, or doesn't answer, is asked again without, and that is remembered
// for some minutes, of each of a Resolver's servers.
//
// Limits: a query asks for datagrams of at most 1232 bytes, and for an answer that doesn't fit by TCP. Of a datagram at
// most 4096 bytes are read; an answer by TCP has at most 65535.
package dns

import (
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// What a server's answer may say instead of addresses.
var (
	ErrServer    = errors.New("server misbehaving") // it failed, or what it sent makes no sense
	ErrNoHost    = errors.New("no such host")
	ErrTruncated = errors.New("answer truncated") // to be asked again by TCP
)

// Types of the records that can be asked for. RFC 1035 §3.2.2, RFC 3596 §2.1.
const (
	A    = uint16(dnsmessage.TypeA)
	AAAA = uint16(dnsmessage.TypeAAAA)
)

// payload is the size of the datagrams that a server may answer with, in bytes: what any path carries unfragmented.
// RFC 6891 §6.2.5.
const payload = 1232

// IsName reports whether DNS can be asked for s: labels of 1 to 63 bytes, 253 in all.
func IsName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}

// rooted returns the name with the dot at its end, as dnsmessage has all names.
func rooted(name string) string { return strings.TrimSuffix(name, ".") + "." }

// AppendQuery appends a query for records of one type to b, with EDNS or without. The name must be one that IsName accepts.
func AppendQuery(b []byte, id uint16, name string, kind uint16, edns bool) []byte {
	n, err := dnsmessage.NewName(rooted(name))
	q := dnsmessage.NewBuilder(b, dnsmessage.Header{ID: id, RecursionDesired: true})
	var opt dnsmessage.ResourceHeader
	// With a name that IsName accepts and one record in the right section none of these can fail.
	err = errors.Join(err,
		q.StartQuestions(),
		q.Question(dnsmessage.Question{Name: n, Type: dnsmessage.Type(kind), Class: dnsmessage.ClassINET}))
	if edns {
		err = errors.Join(err,
			q.StartAdditionals(),
			opt.SetEDNS0(payload, dnsmessage.RCodeSuccess, false),
			q.OPTResource(opt, dnsmessage.OPTResource{}))
	}
	msg, finish := q.Finish()
	if err = errors.Join(err, finish); err != nil {
		panic("dns: BUG: a query that can't be made: " + err.Error())
	}
	return msg
}

// IsAnswer reports whether msg answers this question and no other. The answer must repeat the question, so that an
// attacker who can't see it has more to guess than the identifier and the port. RFC 5452 §9.1.
func IsAnswer(msg []byte, id uint16, name string, kind uint16) bool {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response {
		return false
	}
	q, err := p.Question()
	if err != nil || p.SkipQuestion() != dnsmessage.ErrSectionDone {
		return false
	}
	return equalFold(q.Name.String(), rooted(name)) && uint16(q.Type) == kind && q.Class == dnsmessage.ClassINET
}

// RefusesEDNS reports whether msg is what a server that doesn't know EDNS answers to this question: FORMERR or NOTIMP, with
// the question or without one. RFC 6891 §7.
func RefusesEDNS(msg []byte, id uint16, name string, kind uint16) bool {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response || h.RCode != dnsmessage.RCodeFormatError && h.RCode != dnsmessage.RCodeNotImplemented {
		return false
	}
	_, err = p.Question()
	return err != nil || IsAnswer(msg, id, name, kind)
}

// equalFold reports whether two names are the same but for the case of ASCII letters, which alone are folded in DNS.
// RFC 4343 §3.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	lower := func(c byte) byte {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// Parse returns the addresses of the type in the answer section of a message. It doesn't check that aliases lead from the
// name to them: that is the server's task.
func Parse(msg []byte, kind uint16) ([]netip.Addr, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	switch {
	case err != nil:
		return nil, ErrServer
	case h.Truncated:
		return nil, ErrTruncated
	case h.RCode == dnsmessage.RCodeNameError:
		return nil, ErrNoHost
	case h.RCode != dnsmessage.RCodeSuccess:
		return nil, ErrServer
	}
	if p.SkipAllQuestions() != nil {
		return nil, ErrServer
	}
	var ips []netip.Addr
	for {
		r, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			return ips, nil
		}
		if err != nil {
			return nil, ErrServer
		}
		if uint16(r.Type) != kind || r.Class != dnsmessage.ClassINET {
			if p.SkipAnswer() != nil {
				return nil, ErrServer
			}
			continue
		}
		ip, ok := address(&p, r)
		if !ok {
			return nil, ErrServer
		}
		if ip = ip.Unmap(); ip.Is4() == (kind == A) { // an AAAA record with an IPv4-mapped address is ignored
			ips = append(ips, ip)
		}
	}
}

// address reads the address in a record whose header is r. dnsmessage accepts longer records, so the length is checked here.
func address(p *dnsmessage.Parser, r dnsmessage.ResourceHeader) (netip.Addr, bool) {
	if uint16(r.Type) == A {
		a, err := p.AResource()
		return netip.AddrFrom4(a.A), err == nil && r.Length == 4
	}
	a, err := p.AAAAResource()
	return netip.AddrFrom16(a.AAAA), err == nil && r.Length == 16
}
