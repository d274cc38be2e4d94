package session

import "fmt"

// half is how far one direction of a connection has come. Both directions obey the same table, docs/wire.md section 4.
type half uint8

const (
	opening half = iota
	introduced
	active
	ended
)

func (h half) String() string {
	return [...]string{"opening", "introduced", "active", "ended"}[h]
}

// advance returns a direction's state after a control message has passed in it. An error: it may not pass now.
func (h half) advance(message Control) (half, error) {
	switch message.(type) {
	case *Goodbye:
		if h != ended {
			return ended, nil
		}
	case *Hello:
		if h == opening {
			return introduced, nil
		}
	case *Declare, *Ping, *Pong:
		if h == introduced || h == active {
			return h, nil
		}
	case *Subscriptions:
		if h == introduced || h == active {
			return active, nil
		}
	default:
		if h == active {
			return active, nil
		}
	}
	return h, fmt.Errorf("%s is not allowed in a direction that is %s", message.which(), h)
}

// State is where a connection as a whole stands, for its owner.
type State uint8

const (
	Handshake State = iota
	Up
	// Closing: we said goodbye; what comes is read and discarded until the end of the stream.
	Closing
	Closed
)
