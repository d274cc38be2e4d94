package session

import (
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

// What an element of a list reads out to at least (docs/wire.md section 2).
const (
	rowBytes   = 16
	countBytes = 16
	idBytes    = 8
	textBytes  = 8
)

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
	// budget bounds what is read out. Pointers may lead to the same bytes many times, and lists may have elements that
	// take none; in an honest message nothing reads out to more than the message itself.
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

func (r *reader) structure(s capnp.Struct, index uint16) capnp.Struct {
	pointer := r.pointer(s, index)
	if pointer.IsValid() && !pointer.Struct().IsValid() {
		r.fail("pointer %d leads to no struct", index)
	}
	return pointer.Struct()
}

func (r *reader) asText(pointer capnp.Ptr) string {
	if r.err != nil || !pointer.IsValid() {
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

func (r *reader) text(s capnp.Struct, index uint16) string {
	return r.asText(r.pointer(s, index))
}

func (r *reader) data(s capnp.Struct, index uint16) []byte {
	pointer := r.pointer(s, index)
	if r.err != nil || !pointer.IsValid() {
		return nil
	}
	data := pointer.Data()
	if data == nil {
		r.fail("pointer %d is no Data", index)
	}
	return data
}

// list returns a list, and its length after each element's bytes were taken from the budget.
func (r *reader) list(s capnp.Struct, index uint16, elementBytes int) (capnp.List, int) {
	pointer := r.pointer(s, index)
	list := pointer.List()
	if pointer.IsValid() && !list.IsValid() {
		r.fail("pointer %d leads to no list", index)
	}
	count := list.Len()
	if count < 0 {
		r.fail("a list of %d elements", count)
	}
	if !r.take(count * elementBytes) {
		return capnp.List{}, 0
	}
	return list, count
}

// element returns a list's element as a struct, of the data and pointers that it has at least. Lists of numbers and of
// pointers may be written as lists of structs, which have them at their beginning.
func (r *reader) element(list capnp.List, index int, dataBytes capnp.Size, pointers uint16) capnp.Struct {
	element := list.Struct(index)
	if size := element.Size(); !element.IsValid() || size.DataSize < dataBytes || size.PointerCount < pointers {
		r.fail("a list's elements are of another type")
	}
	return element
}

func (r *reader) ids(s capnp.Struct, index uint16) []uint64 {
	list, count := r.list(s, index, idBytes)
	ids := make([]uint64, 0, count)
	for i := 0; i < count && r.err == nil; i++ {
		ids = append(ids, r.element(list, i, 8, 0).Uint64(0))
	}
	return ids
}

func (r *reader) rows(s capnp.Struct, index uint16) []TableRow {
	list, count := r.list(s, index, rowBytes)
	rows := make([]TableRow, 0, count)
	for i := 0; i < count && r.err == nil; i++ {
		element := r.element(list, i, 0, 0)
		view := wirecapnp.TypeRow(element)
		row := TableRow{WireID: view.WireId(), Row: Row{TypeID: view.TypeId(), Kind: view.Kind()}}
		hashes, length := r.list(element, rowLayout, 4)
		if length > 0 {
			row.Layout = make([]uint32, 0, length)
		}
		for k := 0; k < length && r.err == nil; k++ {
			row.Layout = append(row.Layout, r.element(hashes, k, 4, 0).Uint32(0))
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
	features, count := r.list(s, helloFeatures, textBytes)
	if count > maxFeatures {
		r.fail("hello lists %d features: the limit is %d", count, maxFeatures)
	}
	for i := 0; i < count && r.err == nil; i++ {
		feature := r.asText(r.pointer(r.element(features, i, 0, 1), 0))
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
		list, count := r.list(s, droppedCounts, countBytes)
		dropped := &Dropped{Counts: make([]DropCount, 0, count)}
		for i := 0; i < count && r.err == nil; i++ {
			view := wirecapnp.DropCount(r.element(list, i, 0, 0))
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
