package session

import "lahja-capn.example/peer/internal/wirecapnp"

// Event is something that happened on a connection.
type Event interface{ isEvent() }

type (
	// PeerHello: the peer has introduced itself, and its hello is in order. The owner decides about names, and calls
	// Accept or Close.
	PeerHello struct{ Info PeerInfo }
	// PeerUp: content may pass.
	PeerUp struct{}
	// Arrived: an event or, if Number is not 0, a request. Its credit goes back with ReturnEventCredit or
	// ReturnRequestCredit.
	Arrived struct {
		Type   *Type
		Number uint64
		Frame  []byte
	}
	// Answered: a response. Type is nil if its type is not known here.
	Answered struct {
		Number uint64
		Type   *Type
		Row    *Row
		Frame  []byte
	}
	// AnsweredFailed: a request failed.
	AnsweredFailed struct{ Failed }
	// SubscriptionsChanged: the peer wants other events than before. PeerUp stands for the first ones.
	SubscriptionsChanged struct {
		Added, Removed []uint64
		All            bool
	}
	// SubscriptionsApplied: the peer obeys our subscriptions up to this sequence.
	SubscriptionsApplied struct{ Sequence uint64 }
	// CreditCame: the peer has taken some events, or started on some requests, of ours.
	CreditCame struct{ Events, Requests uint64 }
	// TypeDisabled: the two sides hold different layouts of a type.
	TypeDisabled struct{ *Incompatibility }
	// Ended: the connection is over, for the user. There is exactly one.
	Ended struct{ Ending }
)

// Ending says how a connection ended.
type Ending struct {
	// Code is that of the goodbye, the peer's or ours.
	Code wirecapnp.GoodbyeCode
	Text string
	// ByPeer: the peer said goodbye, or the stream ended.
	ByPeer bool
	// Lost: there was no goodbye; Code means nothing.
	Lost bool
	// Unreadable: there was one, and it could not be read; Code means nothing.
	Unreadable bool
}

// CodeName is the code as wire.capnp spells it, a number for one that is not known, "" if there was none.
func (e *Ending) CodeName() string {
	if e.Lost || e.Unreadable {
		return ""
	}
	return CodeName(e.Code)
}

// PeerInfo is what a peer's hello says about it.
type PeerInfo struct {
	Name           string
	Instance       [16]byte
	Implementation string
	Version        string
	FrameLimit     int
	Features       []string
}

func (PeerHello) isEvent()            {}
func (PeerUp) isEvent()               {}
func (Arrived) isEvent()              {}
func (Answered) isEvent()             {}
func (AnsweredFailed) isEvent()       {}
func (SubscriptionsChanged) isEvent() {}
func (SubscriptionsApplied) isEvent() {}
func (CreditCame) isEvent()           {}
func (TypeDisabled) isEvent()         {}
func (Ended) isEvent()                {}
