package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"capnproto.org/go/capnp/v3"

	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// Pointers of the structs of wire.capnp, by their index in the pointer section. The generated getters are not used for
// them: they take a pointer of another type, or a Text without its NUL, for the default, and here it must be refused.
const (
	helloName, helloInstance, helloImplementation, helloVersion, helloFeatures, helloTypes = 0, 1, 2, 3, 4, 5

	rowName, rowLayout                 = 0, 1
	declareTypes                       = 0
	subscriptionsAdd, subscriptionsRem = 0, 1
	failedTypeName, failedText         = 0, 1
	droppedCounts                      = 0
	goodbyeText                        = 0
)

// Elements of a list of structs may be shorter than the schema's, and then lack what their data has no room for: a TypeRow
// its type id, a DropCount its count. Both are a struct's second word.
const secondWordEnd = 16

const maxFeatures = 256

// DecodeControl reads the control message of a frame that wire.CheckTable has passed, whole: nothing of it is looked at
// later. An error is always a *wire.Error.
func DecodeControl(frame []byte) (message Control, err error) {
	defer func() {
		// No message is known that makes the library panic here. If there is one, it is the sender's fault.
		if r := recover(); r != nil {
			message, err = nil, unreadable(fmt.Errorf("panic: %v", r))
		}
	}()
	opened, err := wire.Open(frame)
	if err != nil {
		return nil, unreadable(err)
	}
	root, err := wire.Root(opened)
	if err != nil {
		return nil, unreadable(err)
	}
	which := wirecapnp.Control(root).Which()
	if which == wirecapnp.Control_Which_goodbye {
		return decodeGoodbye(root), nil
	}
	if which > wirecapnp.Control_Which_goodbye {
		return nil, wire.Errorf(wirecapnp.GoodbyeCode_unknownControl,
			"control variant %d is not known in protocol version 1, and no feature was negotiated", which)
	}
	r := reader{budget: len(frame)}
	var body capnp.Struct
	if which != wirecapnp.Control_Which_ping && which != wirecapnp.Control_Which_pong {
		body = r.structure(root, 0)
	}
	if r.err == nil {
		message = r.message(which, body)
	}
	if r.err != nil {
		var refusal *wire.Error
		if errors.As(r.err, &refusal) {
			return nil, refusal
		}
		return nil, unreadable(r.err)
	}
	return message, nil
}

func unreadable(err error) *wire.Error {
	return wire.Errorf(wirecapnp.GoodbyeCode_protocolError, "a control message cannot be read: %v", err)
}

// reader reads fields and remembers the first error; after it, everything reads as empty.
type reader struct {
	// budget bounds what is read out. Pointers may lead to the same bytes many times; in an honest message nothing, counted
	// as what it takes there, reads out to more than the message itself.
	budget int
	err    error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *reader) take(size int) bool {
	if r.err == nil && size > r.budget {
		r.fail("its parts overlap: it reads out to more than it holds")
	}
	r.budget -= size
	return r.err == nil
}

func (r *reader) pointer(s capnp.Struct, index uint16) capnp.Ptr {
	if r.err != nil {
		return capnp.Ptr{}
	}
	pointer, err := s.Ptr(index)
	if err != nil {
		r.fail("pointer %d: %w", index, err)
	}
	return pointer
}

// isNull says whether there is no object. A far pointer that leads to a null word is no null pointer: it leads to a struct
// without words, which the library shows like nothing.
func (r *reader) isNull(s capnp.Struct, index uint16, pointer capnp.Ptr) bool {
	if r.err != nil || pointer.IsValid() {
		return r.err != nil
	}
	if s.HasPtr(index) {
		r.fail("pointer %d leads to a struct without words", index)
	}
	return true
}

func (r *reader) structure(s capnp.Struct, index uint16) capnp.Struct {
	pointer := r.pointer(s, index)
	if pointer.IsValid() && !pointer.Struct().IsValid() {
		r.fail("pointer %d leads to no struct", index)
	}
	return pointer.Struct()
}

func (r *reader) text(s capnp.Struct, index uint16) string {
	pointer := r.pointer(s, index)
	if r.isNull(s, index, pointer) {
		return ""
	}
	text := pointer.TextBytes()
	if text == nil {
		r.fail("a Text is no list of bytes that ends with a NUL")
	} else if !utf8.Valid(text) {
		r.fail("a Text is not UTF-8: %q", text[:min(len(text), 40)])
	}
	return string(text)
}

func (r *reader) data(s capnp.Struct, index uint16) []byte {
	pointer := r.pointer(s, index)
	if r.isNull(s, index, pointer) {
		return nil
	}
	data := pointer.Data()
	if data == nil {
		r.fail("pointer %d is no Data", index)
	}
	return data
}

// list returns a list, its length and its elements' size, which is at least the given one; its bytes were taken from the
// budget. Lists of numbers and of pointers may be written as lists of structs, which have them at their beginning.
func (r *reader) list(s capnp.Struct, index uint16, least capnp.ObjectSize) (capnp.List, int, capnp.ObjectSize) {
	var none capnp.ObjectSize
	pointer := r.pointer(s, index)
	if r.isNull(s, index, pointer) {
		return capnp.List{}, 0, none
	}
	list := pointer.List()
	if !list.IsValid() {
		r.fail("pointer %d leads to no list", index)
		return capnp.List{}, 0, none
	}
	count := list.Len()
	size, ok := elementSize(list)
	switch {
	case count < 0:
		r.fail("a list of %d elements", count)
	case !ok || size.DataSize < least.DataSize || size.PointerCount < least.PointerCount:
		r.fail("a list's elements are of another type")
	case count > 0 && size == none:
		r.fail("a list of %d elements without words", count)
	}
	if !r.take(count * (int(size.DataSize) + 8*int(size.PointerCount))) {
		return capnp.List{}, 0, none
	}
	return list, count, size
}

// elementSize returns the size of a list's elements as structs, or false for bits, which are none. The library tells it of
// an element alone; of a list without elements it is read from what the library writes for a copy.
func elementSize(list capnp.List) (capnp.ObjectSize, bool) {
	if list.Len() > 0 {
		element := list.Struct(0)
		return element.Size(), element.IsValid()
	}
	message, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil || message.SetRoot(list.ToPtr()) != nil {
		return capnp.ObjectSize{}, false
	}
	words := segment.Data()
	switch binary.LittleEndian.Uint32(words[4:]) & 7 {
	case 0:
		return capnp.ObjectSize{}, true
	case 2, 3, 4, 5:
		return capnp.ObjectSize{DataSize: 1 << (binary.LittleEndian.Uint32(words[4:])&7 - 2)}, true
	case 6:
		return capnp.ObjectSize{PointerCount: 1}, true
	case 7:
		// The tag, behind the root pointer.
		data, pointers := binary.LittleEndian.Uint16(words[12:]), binary.LittleEndian.Uint16(words[14:])
		return capnp.ObjectSize{DataSize: 8 * capnp.Size(data), PointerCount: pointers}, true
	}
	return capnp.ObjectSize{}, false
}

func (r *reader) ids(s capnp.Struct, index uint16) []uint64 {
	list, count, _ := r.list(s, index, capnp.ObjectSize{DataSize: 8})
	ids := make([]uint64, 0, count)
	for i := 0; i < count; i++ {
		ids = append(ids, list.Struct(i).Uint64(0))
	}
	return ids
}

func (r *reader) rows(s capnp.Struct, index uint16) []TableRow {
	list, count, size := r.list(s, index, capnp.ObjectSize{})
	if size.DataSize < secondWordEnd && size.PointerCount == 0 {
		// There may be a million, of a byte each. All are alike: of type id 0, for which the first is refused.
		count = min(count, 1)
	}
	rows := make([]TableRow, 0, count)
	for i := 0; i < count && r.err == nil; i++ {
		element := list.Struct(i)
		view := wirecapnp.TypeRow(element)
		row := TableRow{WireID: view.WireId(), Row: Row{TypeID: view.TypeId(), Kind: view.Kind()}}
		hashes, length, _ := r.list(element, rowLayout, capnp.ObjectSize{DataSize: 4})
		if length > 0 {
			row.Layout = make([]uint32, 0, length)
		}
		for k := 0; k < length; k++ {
			row.Layout = append(row.Layout, hashes.Struct(k).Uint32(0))
		}
		row.Name = r.text(element, rowName)
		r.take(len(row.Name))
		rows = append(rows, row)
	}
	return rows
}

func (r *reader) hello(s capnp.Struct) *Hello {
	view := wirecapnp.Hello(s)
	hello := &Hello{ProtocolVersion: view.ProtocolVersion()}
	if hello.ProtocolVersion != ProtocolVersion {
		// Nothing else of another version's hello may be relied on.
		return hello
	}
	features, count, _ := r.list(s, helloFeatures, capnp.ObjectSize{PointerCount: 1})
	if count > maxFeatures {
		r.fail("hello lists %d features: the limit is %d", count, maxFeatures)
	}
	for i := 0; i < count && r.err == nil; i++ {
		feature := r.text(features.Struct(i), 0)
		r.take(len(feature))
		hello.Features = append(hello.Features, feature)
	}
	hello.Name = r.text(s, helloName)
	hello.Instance = append([]byte(nil), r.data(s, helloInstance)...)
	hello.Implementation = r.text(s, helloImplementation)
	hello.Version = r.text(s, helloVersion)
	hello.FrameLimit = view.FrameLimit()
	hello.KeepaliveMs = view.KeepaliveMs()
	hello.EventCredit = view.EventCredit()
	hello.RequestCredit = view.RequestCredit()
	hello.Types = r.rows(s, helloTypes)
	return hello
}

func (r *reader) message(which wirecapnp.Control_Which, s capnp.Struct) Control {
	switch which {
	case wirecapnp.Control_Which_hello:
		return r.hello(s)
	case wirecapnp.Control_Which_declare:
		return &Declare{Types: r.rows(s, declareTypes)}
	case wirecapnp.Control_Which_subscriptions:
		view := wirecapnp.Subscriptions(s)
		return &Subscriptions{
			Sequence:  view.Sequence(),
			Add:       r.ids(s, subscriptionsAdd),
			Remove:    r.ids(s, subscriptionsRem),
			All:       view.All(),
			AckWanted: view.AckWanted(),
		}
	case wirecapnp.Control_Which_subscriptionsAck:
		return &SubscriptionsAck{Sequence: wirecapnp.SubscriptionsAck(s).Sequence()}
	case wirecapnp.Control_Which_credit:
		view := wirecapnp.Credit(s)
		return &Credit{Events: view.Events(), Requests: view.Requests()}
	case wirecapnp.Control_Which_failed:
		view := wirecapnp.Failed(s)
		return &Failed{
			Correlation: view.Correlation(),
			Code:        view.Code(),
			TypeName:    r.text(s, failedTypeName),
			Text:        r.text(s, failedText),
		}
	case wirecapnp.Control_Which_ping:
		return &Ping{}
	case wirecapnp.Control_Which_pong:
		return &Pong{}
	default:
		list, count, size := r.list(s, droppedCounts, capnp.ObjectSize{})
		if size.DataSize < secondWordEnd {
			// Without a count: nothing was dropped. There may be a million, of a byte each.
			count = 0
		}
		dropped := &Dropped{Counts: make([]DropCount, 0, count)}
		for i := 0; i < count; i++ {
			view := wirecapnp.DropCount(list.Struct(i))
			dropped.Counts = append(dropped.Counts, DropCount{TypeID: view.TypeId(), Count: view.Count()})
		}
		return dropped
	}
}

// decodeGoodbye never fails: whatever else it says, the peer has ended, and an answer would reach nobody.
func decodeGoodbye(root capnp.Struct) *Goodbye {
	r := reader{}
	body := r.structure(root, 0)
	goodbye := &Goodbye{Code: wirecapnp.Goodbye(body).Code(), Text: r.text(body, goodbyeText)}
	if r.err != nil {
		goodbye.Text, goodbye.Unreadable = "its reason cannot be read", true
	}
	return goodbye
}
