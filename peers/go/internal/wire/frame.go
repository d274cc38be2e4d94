// Package wire reads and writes frames: the 16 bytes that stand before a Cap'n Proto message, and the checks that
// docs/wire.md section 2 wants before a library looks at the message. It knows no connection and no clock.
package wire

import (
	"encoding/binary"
	"fmt"

	"lahja-capn.example/peer/internal/wirecapnp"
)

// Sizes are bytes of frame size (DATA_LENGTH + 4) unless said otherwise; docs/wire.md section 11 lists them.
const (
	HeaderSize = 16
	// MinFrame is a header, a segment table of one segment, and one word for the root pointer.
	MinFrame = 32
	// MaxFrame is the largest frame that every language can express: a multiple of 8 below 2^31.
	MaxFrame = 1<<31 - 8
	// MinFrameLimit is the smallest frameLimit that a hello may name.
	MinFrameLimit = 1024
	// ControlLimit bounds control frames, always: they pass before the peer's limit is known.
	ControlLimit = 1 << 20
	// MaxSegments is what Cap'n Proto libraries accept in a message.
	MaxSegments = 512
)

// Kind says what a frame carries.
type Kind uint8

const (
	Control Kind = iota
	Event
	Request
	Response
)

func (k Kind) String() string {
	return [...]string{"control", "event", "request", "response"}[k]
}

// flags of each kind, as they stand in a frame.
var flags = [...]uint16{Control: 0, Event: 0, Request: 1, Response: 2}

// Error is a rule of docs/wire.md that the peer broke. It ends the connection: Code is what our goodbye says.
type Error struct {
	Code wirecapnp.GoodbyeCode
	Text string
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(code wirecapnp.GoodbyeCode, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

func protocolError(format string, args ...any) *Error {
	return Errorf(wirecapnp.GoodbyeCode_protocolError, format, args...)
}

// Header is what the first 16 bytes of a frame say.
type Header struct {
	Kind        Kind
	WireID      uint16
	Correlation uint64
	// Size is the frame's size in bytes.
	Size int
}

// CheckLength judges the first four bytes of a frame alone: a stranger may send few bytes and wait.
func CheckLength(first []byte, limit int) error {
	length := binary.LittleEndian.Uint32(first)
	if length%8 != 4 || length < MinFrame-4 {
		return protocolError("DATA_LENGTH is %d: wanted at least %d, and 4 modulo 8", length, MinFrame-4)
	}
	if size := uint64(length) + 4; size > uint64(limit) {
		return Errorf(wirecapnp.GoodbyeCode_frameTooLarge, "a frame of %d bytes: the limit is %d", size, limit)
	}
	return nil
}

// ParseHeader reads the header of a frame. frameLimit is the receiver's limit for content; nothing larger passes, so
// that its caller may take Size bytes of memory.
func ParseHeader(data []byte, frameLimit int) (Header, error) {
	_ = data[HeaderSize-1]
	wireID := binary.LittleEndian.Uint16(data[4:])
	flag := binary.LittleEndian.Uint16(data[6:])
	correlation := binary.LittleEndian.Uint64(data[8:])
	limit := frameLimit
	if wireID == 0 {
		limit = ControlLimit
	}
	if err := CheckLength(data, limit); err != nil {
		return Header{}, err
	}
	header := Header{WireID: wireID, Correlation: correlation, Size: int(binary.LittleEndian.Uint32(data)) + 4}
	switch {
	case wireID == 0 && flag == 0 && correlation == 0:
		header.Kind = Control
	case wireID != 0 && flag == 0 && correlation == 0:
		header.Kind = Event
	case wireID != 0 && flag == 1 && correlation != 0:
		header.Kind = Request
	case wireID != 0 && flag == 2 && correlation != 0:
		header.Kind = Response
	default:
		return Header{}, protocolError("EVENT_ID %d, FLAGS %d and CORRELATION %d do not go together",
			wireID, flag, correlation)
	}
	return header, nil
}

// CheckTable judges the segment table of a whole frame: rules 5 to 8 of docs/wire.md section 2.
func CheckTable(frame []byte) error {
	count := uint64(binary.LittleEndian.Uint32(frame[16:])) + 1
	if count > MaxSegments {
		return protocolError("a message of %d segments: the limit is %d", count, MaxSegments)
	}
	body := bodyOffset(int(count))
	if body > len(frame) {
		return protocolError("a table of %d segments does not fit a frame of %d bytes", count, len(frame))
	}
	if count%2 == 0 {
		if padding := binary.LittleEndian.Uint32(frame[body-4:]); padding != 0 {
			return protocolError("the padding of the segment table is %#x: wanted 0", padding)
		}
	}
	total := uint64(body)
	for i := 0; i < int(count); i++ {
		words := binary.LittleEndian.Uint32(frame[20+4*i:])
		if i == 0 && words == 0 {
			return protocolError("segment 0 has no words")
		}
		total += 8 * uint64(words)
	}
	if total != uint64(len(frame)) {
		return protocolError("table and segments are %d bytes in a frame of %d", total, len(frame))
	}
	return nil
}

// bodyOffset is where segment 0 starts in a frame of count segments.
func bodyOffset(count int) int { return HeaderSize + 8*(count/2+1) }

// PutHeader writes the header of frame, whose message is in place.
func PutHeader(frame []byte, kind Kind, wireID uint16, correlation uint64) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-4))
	binary.LittleEndian.PutUint16(frame[4:], wireID)
	binary.LittleEndian.PutUint16(frame[6:], flags[kind])
	binary.LittleEndian.PutUint64(frame[8:], correlation)
}
