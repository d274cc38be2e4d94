package wire

import (
	"encoding/binary"
	"fmt"

	"capnproto.org/go/capnp/v3"
)

// The limit on traversal guards against amplification: pointers that lead to the same bytes again and again. It is per
// opened reader, and scaled to the message, because an honest one costs at most 64 times its size: the library counts
// a Bool of a list as a word. The least of it is for lists of Void, which take no bytes and count a word for each.
const (
	traversalFactor = 64
	minTraversal    = 1 << 20
	// Nesting is limited by the library, which loses count in some lists (see README.md): recursion over a type that
	// contains itself wants a limit of its own.
	depthLimit = 64
)

// Open returns a reader over the segments of a frame that CheckTable has passed. Nothing is copied: the message, and
// every Data and Text bytes read from it, share the frame's memory. Each call gives a reader with a fresh limit.
func Open(frame []byte) (*capnp.Message, error) {
	count := int(binary.LittleEndian.Uint32(frame[16:])) + 1
	rest := frame[bodyOffset(count):]
	var arena capnp.Arena
	if count == 1 {
		arena = capnp.SingleSegment(rest[:len(rest):len(rest)])
	} else {
		segments := make([][]byte, count)
		for i := range segments {
			size := 8 * int(binary.LittleEndian.Uint32(frame[20+4*i:]))
			segments[i], rest = rest[:size:size], rest[size:]
		}
		arena = capnp.MultiSegment(segments)
	}
	message, _, err := capnp.NewMessage(arena)
	if err != nil {
		return nil, fmt.Errorf("opening a message of %d segments: %w", count, err)
	}
	// Binds each segment to the message now. The library does it on first use, and two readers would race.
	for i := 0; i < count; i++ {
		if _, err := message.Segment(capnp.SegmentID(i)); err != nil {
			return nil, fmt.Errorf("opening segment %d of %d: %w", i, count, err)
		}
	}
	message.DepthLimit = depthLimit
	message.ResetReadLimit(max(minTraversal, traversalFactor*uint64(len(frame))))
	return message, nil
}

// Root returns the root of a message: a struct, or, of a null pointer, the zero Struct, which reads as all defaults.
func Root(message *capnp.Message) (capnp.Struct, error) {
	root, err := message.Root()
	if err != nil {
		return capnp.Struct{}, err
	}
	if root.IsValid() && !root.Struct().IsValid() {
		return capnp.Struct{}, fmt.Errorf("the root of the message is no struct")
	}
	return root.Struct(), nil
}

// Encode returns the frame of a message that was built. The caller may release or change the message afterwards.
func Encode(kind Kind, wireID uint16, correlation uint64, message *capnp.Message) ([]byte, error) {
	count := int(message.NumSegments())
	if count < 1 || count > MaxSegments {
		return nil, fmt.Errorf("a message of %d segments: peers accept 1 to %d", count, MaxSegments)
	}
	size := bodyOffset(count)
	segments := make([][]byte, count)
	for i := range segments {
		segment, err := message.Segment(capnp.SegmentID(i))
		if err != nil {
			return nil, fmt.Errorf("segment %d of %d: %w", i, count, err)
		}
		segments[i] = segment.Data()
		size += len(segments[i])
	}
	if len(segments[0]) == 0 {
		return nil, fmt.Errorf("the message has no root pointer: set its root before sending it")
	}
	if size > MaxFrame {
		return nil, fmt.Errorf("a frame of %d bytes: no peer can accept more than %d", size, MaxFrame)
	}
	frame := make([]byte, bodyOffset(count), size)
	binary.LittleEndian.PutUint32(frame[16:], uint32(count-1))
	for i, segment := range segments {
		binary.LittleEndian.PutUint32(frame[20+4*i:], uint32(len(segment)/8))
		frame = append(frame, segment...)
	}
	PutHeader(frame, kind, wireID, correlation)
	return frame, nil
}
