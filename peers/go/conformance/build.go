package conformance

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"capnproto.org/go/capnp/v3"

	peer "lahja-capn.example/peer"
	"lahja-capn.example/peer/conformance/events"
)

// BuildMessage makes a message out of the value of the named event type. Fields that are absent keep their defaults.
func BuildMessage(name string, value object) (message *peer.Message, err error) {
	switch name {
	case "Everything":
		return Everything.New(func(e events.Everything) error { return guarded(func() { buildEverything(e, value) }) })
	case "Count":
		return Count.New(func(e events.Count) error {
			return guarded(func() { set(value, "number", func(v any) { e.SetNumber(toU64(v)) }) })
		})
	case "Blob":
		return Blob.New(func(e events.Blob) error {
			return guarded(func() {
				set(value, "id", func(v any) { e.SetId(uint32(toInt(v))) })
				set(value, "data", func(v any) { check(e.SetData(toData(v))) })
			})
		})
	case "Late":
		return Late.New(func(e events.Late) error {
			return guarded(func() { set(value, "text", func(v any) { check(e.SetText(to[string](v))) }) })
		})
	case "Evolving":
		return Evolving.New(func(e events.Evolving) error { return guarded(func() { buildEvolving(e, value) }) })
	case "Ask":
		return Ask.New(func(e events.Ask) error {
			return guarded(func() {
				set(value, "number", func(v any) { e.SetNumber(toU64(v)) })
				set(value, "mode", func(v any) { e.SetMode(toEnum(v, events.ModeFromString)) })
			})
		})
	case "Answer":
		return Answer.New(func(e events.Answer) error {
			return guarded(func() {
				set(value, "number", func(v any) { e.SetNumber(toU64(v)) })
				set(value, "text", func(v any) { check(e.SetText(to[string](v))) })
			})
		})
	}
	return nil, fmt.Errorf("conformance.capnp has no event type %q", name)
}

// set calls f with a field's value, if it is there.
func set(value object, field string, f func(any)) {
	if v, ok := value[field]; ok {
		f(v)
	}
}

func to[T any](v any) T {
	typed, ok := v.(T)
	if !ok {
		panic(failure{fmt.Errorf("a value is %T %.40v: wanted %T", v, v, typed)})
	}
	return typed
}

func toInt(v any) int64  { return must(to[json.Number](v).Int64()) }
func toI64(v any) int64  { return must(strconv.ParseInt(to[string](v), 10, 64)) }
func toU64(v any) uint64 { return must(strconv.ParseUint(to[string](v), 10, 64)) }
func toF32(v any) float32 {
	return math.Float32frombits(uint32(must(strconv.ParseUint(to[string](v), 16, 32))))
}
func toF64(v any) float64 {
	return math.Float64frombits(must(strconv.ParseUint(to[string](v), 16, 64)))
}
func toData(v any) []byte { return must(hex.DecodeString(to[string](v))) }
func small[T ~int8 | ~int16 | ~int32 | ~uint8 | ~uint16 | ~uint32](v any) T {
	return T(toInt(v))
}

func toEnum[T interface {
	~uint16
	String() string
}](v any, fromString func(string) T) T {
	name, ok := v.(string)
	if !ok {
		return small[T](v)
	}
	found := fromString(name)
	if found.String() != name {
		panic(failure{fmt.Errorf("%q is no enumerant", name)})
	}
	return found
}

// fillList makes a list with newList and sets each element.
func fillList[L any](v any, newList func(int32) (L, error), element func(L, int, any)) L {
	values := to[array](v)
	l := must(newList(int32(len(values))))
	for i, value := range values {
		element(l, i, value)
	}
	return l
}

func buildInner(inner events.Inner, v any) {
	value := to[object](v)
	set(value, "number", func(v any) { inner.SetNumber(small[int32](v)) })
	set(value, "label", func(v any) { check(inner.SetLabel(to[string](v))) })
	set(value, "more", func(v any) { fillList(v, inner.NewMore, buildInners) })
}

func buildInners(l events.Inner_List, i int, v any) { buildInner(l.At(i), v) }

func buildText(l capnp.TextList, i int, v any) { check(l.Set(i, to[string](v))) }

func buildU16(l capnp.UInt16List, i int, v any) { l.Set(i, small[uint16](v)) }

func buildF32(l capnp.Float32List, i int, v any) { l.Set(i, toF32(v)) }

func buildEvolving(e events.Evolving, value object) {
	set(value, "number", func(v any) { e.SetNumber(small[uint32](v)) })
	set(value, "text", func(v any) { check(e.SetText(to[string](v))) })
	set(value, "inner", func(v any) { buildInner(must(e.NewInner()), v) })
	set(value, "choice", func(v any) {
		choice := to[object](v)
		set(choice, "left", func(v any) { e.Choice().SetLeft(small[uint16](v)) })
		set(choice, "right", func(v any) { check(e.Choice().SetRight(to[string](v))) })
	})
}

func buildEverything(e events.Everything, value object) {
	fields := map[string]func(any){
		"nothing": func(any) {},
		"flag":    func(v any) { e.SetFlag(to[bool](v)) },
		"i8":      func(v any) { e.SetI8(small[int8](v)) },
		"i16":     func(v any) { e.SetI16(small[int16](v)) },
		"i32":     func(v any) { e.SetI32(small[int32](v)) },
		"i64":     func(v any) { e.SetI64(toI64(v)) },
		"u8":      func(v any) { e.SetU8(small[uint8](v)) },
		"u16":     func(v any) { e.SetU16(small[uint16](v)) },
		"u32":     func(v any) { e.SetU32(small[uint32](v)) },
		"u64":     func(v any) { e.SetU64(toU64(v)) },
		"f32":     func(v any) { e.SetF32(toF32(v)) },
		"f64":     func(v any) { e.SetF64(toF64(v)) },
		"text":    func(v any) { check(e.SetText(to[string](v))) },
		"data":    func(v any) { check(e.SetData(toData(v))) },
		"color":   func(v any) { e.SetColor(toEnum(v, events.ColorFromString)) },
		"inner":   func(v any) { buildInner(must(e.NewInner()), v) },

		"place":    func(v any) { buildPlace(e.Place(), to[object](v)) },
		"shape":    func(v any) { buildShape(e.Shape(), to[object](v)) },
		"anyKind":  func(v any) { e.SetAnyKind(toEnum(v, events.AnyKindFromString)) },
		"anything": func(v any) { buildAnything(e, to[object](v)) },

		"none":  func(any) { e.SetNone() },
		"count": func(v any) { e.SetCount(small[uint32](v)) },
		"word":  func(v any) { check(e.SetWord(to[string](v))) },
		"part":  func(v any) { buildInner(must(e.NewPart()), v) },
		"span": func(v any) {
			e.SetSpan()
			set(to[object](v), "first", func(v any) { e.Span().SetFirst(small[int16](v)) })
			set(to[object](v), "last", func(v any) { e.Span().SetLast(small[int16](v)) })
		},

		"flagDefault":  func(v any) { e.SetFlagDefault(to[bool](v)) },
		"i16Default":   func(v any) { e.SetI16Default(small[int16](v)) },
		"f64Default":   func(v any) { e.SetF64Default(toF64(v)) },
		"textDefault":  func(v any) { check(e.SetTextDefault(to[string](v))) },
		"dataDefault":  func(v any) { check(e.SetDataDefault(toData(v))) },
		"colorDefault": func(v any) { e.SetColorDefault(toEnum(v, events.ColorFromString)) },
		"innerDefault": func(v any) { buildInner(must(e.NewInnerDefault()), v) },
		"again": func(v any) {
			if v != nil {
				buildEverything(must(e.NewAgain()), to[object](v))
			}
		},
	}
	addLists(e, fields)
	names := make([]string, 0, len(value))
	for name := range value {
		names = append(names, name)
	}
	// Sorted: anything sets anyKind where that is left out, and must come before it.
	slices.Sort(names)
	if slices.Contains(names, "anything") {
		fields["anything"](value["anything"])
	}
	for _, name := range names {
		f := fields[name]
		if f == nil {
			panic(failure{fmt.Errorf("Everything has no field %q", name)})
		}
		if name != "anything" {
			f(value[name])
		}
	}
}

func addLists(e events.Everything, fields map[string]func(any)) {
	fields["nothings"] = func(v any) {
		nothings := must(capnp.NewVoidList(e.Segment(), int32(len(to[array](v)))), nil)
		check(e.SetNothings(capnp.List(nothings).ToPtr()))
	}
	fields["flags"] = func(v any) {
		fillList(v, e.NewFlags, func(l capnp.BitList, i int, v any) { l.Set(i, to[bool](v)) })
	}
	fields["i8s"] = func(v any) {
		fillList(v, e.NewI8s, func(l capnp.Int8List, i int, v any) { l.Set(i, small[int8](v)) })
	}
	fields["i16s"] = func(v any) {
		fillList(v, e.NewI16s, func(l capnp.Int16List, i int, v any) { l.Set(i, small[int16](v)) })
	}
	fields["i32s"] = func(v any) {
		fillList(v, e.NewI32s, func(l capnp.Int32List, i int, v any) { l.Set(i, small[int32](v)) })
	}
	fields["i64s"] = func(v any) {
		fillList(v, e.NewI64s, func(l capnp.Int64List, i int, v any) { l.Set(i, toI64(v)) })
	}
	fields["u8s"] = func(v any) { fillList(v, e.NewU8s, buildU8) }
	fields["u16s"] = func(v any) { fillList(v, e.NewU16s, buildU16) }
	fields["u32s"] = func(v any) {
		fillList(v, e.NewU32s, func(l capnp.UInt32List, i int, v any) { l.Set(i, small[uint32](v)) })
	}
	fields["u64s"] = func(v any) {
		fillList(v, e.NewU64s, func(l capnp.UInt64List, i int, v any) { l.Set(i, toU64(v)) })
	}
	fields["f32s"] = func(v any) { fillList(v, e.NewF32s, buildF32) }
	fields["f64s"] = func(v any) {
		fillList(v, e.NewF64s, func(l capnp.Float64List, i int, v any) { l.Set(i, toF64(v)) })
	}
	fields["texts"] = func(v any) { fillList(v, e.NewTexts, buildText) }
	fields["datas"] = func(v any) {
		fillList(v, e.NewDatas, func(l capnp.DataList, i int, v any) { check(l.Set(i, toData(v))) })
	}
	fields["colors"] = func(v any) {
		fillList(v, e.NewColors, func(l events.Color_List, i int, v any) { l.Set(i, toEnum(v, events.ColorFromString)) })
	}
	fields["inners"] = func(v any) { fillList(v, e.NewInners, buildInners) }
	fields["u8sDefault"] = func(v any) { fillList(v, e.NewU8sDefault, buildU8) }

	segment := e.Segment()
	fields["u16Lists"] = func(v any) {
		fillList(v, e.NewU16Lists, func(l capnp.PointerList, i int, v any) {
			inner := fillList(v, func(n int32) (capnp.UInt16List, error) { return capnp.NewUInt16List(segment, n) }, buildU16)
			check(l.Set(i, inner.ToPtr()))
		})
	}
	fields["textLists"] = func(v any) {
		fillList(v, e.NewTextLists, func(l capnp.PointerList, i int, v any) {
			inner := fillList(v, func(n int32) (capnp.TextList, error) { return capnp.NewTextList(segment, n) }, buildText)
			check(l.Set(i, inner.ToPtr()))
		})
	}
	fields["innerLists"] = func(v any) {
		fillList(v, e.NewInnerLists, func(l capnp.PointerList, i int, v any) {
			inner := fillList(v, func(n int32) (events.Inner_List, error) { return events.NewInner_List(segment, n) }, buildInners)
			check(l.Set(i, inner.ToPtr()))
		})
	}
}

func buildU8(l capnp.UInt8List, i int, v any) { l.Set(i, small[uint8](v)) }

func buildPlace(place events.Everything_place, value object) {
	set(value, "x", func(v any) { place.SetX(toF64(v)) })
	set(value, "label", func(v any) { check(place.SetLabel(to[string](v))) })
	set(value, "inner", func(v any) { buildInner(must(place.NewInner()), v) })
}

func buildShape(shape events.Everything_shape, value object) {
	set(value, "circle", func(v any) { shape.SetCircle(toF64(v)) })
	set(value, "polygon", func(v any) { fillList(v, shape.NewPolygon, buildF32) })
	set(value, "blank", func(any) { shape.SetBlank() })
}

// buildAnything sets anything, and anyKind to fit.
func buildAnything(e events.Everything, value object) {
	segment := e.Segment()
	put := func(kind events.AnyKind, pointer capnp.Ptr) {
		e.SetAnyKind(kind)
		check(e.SetAnything(pointer))
	}
	set(value, "null", func(any) { put(events.AnyKind_null, capnp.Ptr{}) })
	set(value, "text", func(v any) { put(events.AnyKind_text, must(capnp.NewText(segment, to[string](v))).ToPtr()) })
	set(value, "data", func(v any) { put(events.AnyKind_data, must(capnp.NewData(segment, toData(v))).ToPtr()) })
	set(value, "inner", func(v any) {
		inner := must(events.NewInner(segment))
		buildInner(inner, v)
		put(events.AnyKind_inner, inner.ToPtr())
	})
	set(value, "u16s", func(v any) {
		l := fillList(v, func(n int32) (capnp.UInt16List, error) { return capnp.NewUInt16List(segment, n) }, buildU16)
		put(events.AnyKind_u16s, l.ToPtr())
	})
}
