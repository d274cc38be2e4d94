package peer

import (
	"errors"
	"fmt"
	"strings"

	"lahja-capn.example/peer/internal/session"
)

var (
	// ErrClosed: the endpoint, or the subscription, was closed.
	ErrClosed = errors.New("closed")
	// ErrNoAnswer is returned by a handler that does not answer: the request stays open until its requester gives up.
	ErrNoAnswer = errors.New("no answer")
	// ErrNobody: no connected peer subscribes to the request's type, or none that reads it as we do.
	ErrNobody = errors.New("no connected peer answers requests of this type")
	// ErrDisconnected: every peer that a request went to has gone without an answer.
	ErrDisconnected = errors.New("every peer that could answer has gone")
	// ErrWrongAnswer: the answer is of a type that is not known here, or that was not wanted.
	ErrWrongAnswer = errors.New("the answer is of another type")
)

// FrameTooLarge: a message exceeds what a peer accepts.
type FrameTooLarge = session.TooLarge

// ConnectError says why Connect failed.
type ConnectError struct {
	// Endpoint is ours, Peer the name that was wanted.
	Endpoint, Peer, Path string
	// Code is that of the goodbye, as in wire.capnp; "" if the stream ended without one.
	Code string
	// ByPeer: the other side refused us. Else we refused it.
	ByPeer bool
	Text   string
}

func (e *ConnectError) Error() string {
	what := "refused it"
	if e.ByPeer {
		what = "was refused"
	}
	if e.Code != "" {
		what += " with " + e.Code
	}
	return fmt.Sprintf("%q could not connect to %q at %q: %s: %s", e.Endpoint, e.Peer, e.Path, what, e.Text)
}

// RequestFailed is one peer's answer that there is no response. A Request that went to several peers and failed at all
// of them returns these, joined.
type RequestFailed struct {
	Peer string
	// Code is a FailedCode as in wire.capnp, or the number of an unknown one.
	Code string
	// TypeName is the class of the handler's exception, or its like.
	TypeName string
	Text     string
}

func (e *RequestFailed) Error() string {
	parts := []string{e.Code}
	for _, part := range []string{e.TypeName, e.Text} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return fmt.Sprintf("request failed at %q: %s", e.Peer, strings.Join(parts, ": "))
}

// Failure is an error that a handler returns to choose what the requester is told. Of any other error it is told the
// Go type and the text.
type Failure struct {
	TypeName string
	Text     string
}

func (e *Failure) Error() string { return e.TypeName + ": " + e.Text }
