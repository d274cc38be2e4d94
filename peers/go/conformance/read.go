package conformance

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"

	"encoding/json"

	"capnproto.org/go/capnp/v3"

	"lahja-capn.example/peer/conformance/events"
)

// Values of Cap'n Proto structs as the JSON that tests/vectors/README.md describes: object, array, json.Number, string,
// bool and nil.
type (
	object = map[string]any
	array  = []any
)

// maxDepth bounds recursion. The library's own limit does not hold in lists of structs, and a message can lead to
// itself.
const maxDepth = 64

// ReadValue returns the value of a message whose root is the named struct of conformance.capnp.
func ReadValue(name string, root capnp.Struct) (value object, err error) {
	err = guarded(func() {
		switch name {
		case "Everything":
			value = readEverything(events.Everything(root), 0)
		case "Inner":
			value = readInner(events.Inner(root), 0)
		case "Count":
			value = object{"number": u64(events.Count(root).Number())}
		case "Blob":
			blob := events.Blob(root)
			value = object{"id": number(blob.Id()), "data": hex.EncodeToString(must(blob.Data()))}
		case "Late":
			value = object{"text": must(events.Late(root).Text())}
		case "Evolving":
			value = readEvolving(events.Evolving(root))
		case "Ask":
			ask := events.Ask(root)
			value = object{"number": u64(ask.Number()), "mode": enum(ask.Mode())}
		case "Answer":
			answer := events.Answer(root)
			value = object{"number": u64(answer.Number()), "text": must(answer.Text())}
		default:
			panic(failure{fmt.Errorf("conformance.capnp has no event type %q", name)})
		}
	})
	return value, err
}

// failure is the panic by which the functions of this file and the next give up.
type failure struct{ err error }

func must[T any](value T, err error) T {
	if err != nil {
		panic(failure{err})
	}
	return value
}

func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// guarded returns what f gave up with. A panic of the library over a bad message is an error too.
func guarded(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.err
		default:
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	f()
	return nil
}

func number[T int8 | int16 | int32 | uint8 | uint16 | uint32](n T) any {
	return json.Number(strconv.FormatInt(int64(n), 10))
}

func i64(n int64) any     { return strconv.FormatInt(n, 10) }
func u64(n uint64) any    { return strconv.FormatUint(n, 10) }
func f32(f float32) any   { return fmt.Sprintf("%08x", math.Float32bits(f)) }
func f64(f float64) any   { return fmt.Sprintf("%016x", math.Float64bits(f)) }
func same[T any](v T) any { return v }

func enum[T interface {
	~uint16
	String() string
}](value T) any {
	if name := value.String(); name != "" {
		return name
	}
	return number(uint16(value))
}

type sized interface{ Len() int }

func list[L sized, T any](l L, at func(int) T, read func(T) any) array {
	values := array{}
	for i := 0; i < l.Len(); i++ {
		values = append(values, read(at(i)))
	}
	return values
}

// fallible is at for lists of pointers.
func fallible[T any](at func(int) (T, error)) func(int) T {
	return func(i int) T { return must(at(i)) }
}

func readInner(inner events.Inner, depth int) object {
	if depth > maxDepth {
		panic(failure{errors.New("Inner is nested too deeply")})
	}
	return object{
		"number": number(inner.Number()),
		"label":  must(inner.Label()),
		"more":   readInners(must(inner.More()), depth),
	}
}

func readInners(l events.Inner_List, depth int) array {
	return list(capnp.List(l), l.At, func(inner events.Inner) any { return readInner(inner, depth+1) })
}

// readTexts goes by pointers: the library's TextList and DataList look for a pointer in the wrong place when the list was
// written as one of structs that have data.
func readTexts(l capnp.TextList) array {
	return list(capnp.List(l), fallible(capnp.PointerList(l).At), func(p capnp.Ptr) any { return p.Text() })
}

func readU16s(l capnp.UInt16List) array { return list(capnp.List(l), l.At, number[uint16]) }

func readF32s(l capnp.Float32List) array { return list(capnp.List(l), l.At, f32) }

func hexOf(data []byte) any { return hex.EncodeToString(data) }

func readEvolving(e events.Evolving) object {
	choice := object{}
	switch c := e.Choice(); c.Which() {
	case events.Evolving_choice_Which_left:
		choice["left"] = number(c.Left())
	case events.Evolving_choice_Which_right:
		choice["right"] = must(c.Right())
	default:
		choice["unknown"] = number(uint16(c.Which()))
	}
	return object{
		"number": number(e.Number()),
		"text":   must(e.Text()),
		"inner":  readInner(must(e.Inner()), 0),
		"choice": choice,
	}
}

func readEverything(e events.Everything, depth int) object {
	if depth > maxDepth {
		panic(failure{errors.New("Everything is nested too deeply")})
	}
	value := object{
		"nothing": nil,
		"flag":    e.Flag(),
		"i8":      number(e.I8()),
		"i16":     number(e.I16()),
		"i32":     number(e.I32()),
		"i64":     i64(e.I64()),
		"u8":      number(e.U8()),
		"u16":     number(e.U16()),
		"u32":     number(e.U32()),
		"u64":     u64(e.U64()),
		"f32":     f32(e.F32()),
		"f64":     f64(e.F64()),
		"text":    must(e.Text()),
		"data":    hexOf(must(e.Data())),
		"color":   enum(e.Color()),
		"inner":   readInner(must(e.Inner()), depth),

		"place": object{
			"x":     f64(e.Place().X()),
			"label": must(e.Place().Label()),
			"inner": readInner(must(e.Place().Inner()), depth),
		},
		"shape":    readShape(e.Shape()),
		"anyKind":  enum(e.AnyKind()),
		"anything": readAnything(e, depth),

		"flagDefault":  e.FlagDefault(),
		"i16Default":   number(e.I16Default()),
		"f64Default":   f64(e.F64Default()),
		"textDefault":  must(e.TextDefault()),
		"dataDefault":  hexOf(must(e.DataDefault())),
		"colorDefault": enum(e.ColorDefault()),
		"innerDefault": readInner(must(e.InnerDefault()), depth),
		"again":        nil,
	}
	if e.HasAgain() {
		value["again"] = readEverything(must(e.Again()), depth+1)
	}
	u8sDefault := must(e.U8sDefault())
	value["u8sDefault"] = list(capnp.List(u8sDefault), u8sDefault.At, number[uint8])
	readLists(e, value, depth)
	readUnion(e, value, depth)
	return value
}

func readLists(e events.Everything, value object, depth int) {
	nothings := must(e.Nothings()).List()
	value["nothings"] = list(nothings, func(int) any { return nil }, same[any])
	flags := must(e.Flags())
	value["flags"] = list(capnp.List(flags), flags.At, same[bool])
	i8s := must(e.I8s())
	value["i8s"] = list(capnp.List(i8s), i8s.At, number[int8])
	i16s := must(e.I16s())
	value["i16s"] = list(capnp.List(i16s), i16s.At, number[int16])
	i32s := must(e.I32s())
	value["i32s"] = list(capnp.List(i32s), i32s.At, number[int32])
	i64s := must(e.I64s())
	value["i64s"] = list(capnp.List(i64s), i64s.At, i64)
	u8s := must(e.U8s())
	value["u8s"] = list(capnp.List(u8s), u8s.At, number[uint8])
	value["u16s"] = readU16s(must(e.U16s()))
	u32s := must(e.U32s())
	value["u32s"] = list(capnp.List(u32s), u32s.At, number[uint32])
	u64s := must(e.U64s())
	value["u64s"] = list(capnp.List(u64s), u64s.At, u64)
	value["f32s"] = readF32s(must(e.F32s()))
	f64s := must(e.F64s())
	value["f64s"] = list(capnp.List(f64s), f64s.At, f64)
	value["texts"] = readTexts(must(e.Texts()))
	datas := must(e.Datas())
	value["datas"] = list(capnp.List(datas), fallible(capnp.PointerList(datas).At), func(p capnp.Ptr) any { return hexOf(p.Data()) })
	colors := must(e.Colors())
	value["colors"] = list(capnp.List(colors), colors.At, enum[events.Color])
	value["inners"] = readInners(must(e.Inners()), depth)

	u16Lists := must(e.U16Lists())
	value["u16Lists"] = list(capnp.List(u16Lists), fallible(u16Lists.At),
		func(p capnp.Ptr) any { return readU16s(capnp.UInt16List(p.List())) })
	textLists := must(e.TextLists())
	value["textLists"] = list(capnp.List(textLists), fallible(textLists.At),
		func(p capnp.Ptr) any { return readTexts(capnp.TextList(p.List())) })
	innerLists := must(e.InnerLists())
	value["innerLists"] = list(capnp.List(innerLists), fallible(innerLists.At),
		func(p capnp.Ptr) any { return readInners(events.Inner_List(p.List()), depth) })
}

// readUnion adds the member of the unnamed union that is set.
func readUnion(e events.Everything, value object, depth int) {
	switch e.Which() {
	case events.Everything_Which_none:
		value["none"] = nil
	case events.Everything_Which_count:
		value["count"] = number(e.Count())
	case events.Everything_Which_word:
		value["word"] = must(e.Word())
	case events.Everything_Which_part:
		value["part"] = readInner(must(e.Part()), depth)
	case events.Everything_Which_span:
		value["span"] = object{"first": number(e.Span().First()), "last": number(e.Span().Last())}
	default:
		value["unknown"] = number(uint16(e.Which()))
	}
}

func readShape(shape events.Everything_shape) object {
	switch shape.Which() {
	case events.Everything_shape_Which_circle:
		return object{"circle": f64(shape.Circle())}
	case events.Everything_shape_Which_polygon:
		return object{"polygon": readF32s(must(shape.Polygon()))}
	case events.Everything_shape_Which_blank:
		return object{"blank": nil}
	default:
		return object{"unknown": number(uint16(shape.Which()))}
	}
}

func readAnything(e events.Everything, depth int) any {
	anything := must(e.Anything())
	switch e.AnyKind() {
	case events.AnyKind_text:
		return object{"text": anything.Text()}
	case events.AnyKind_data:
		return object{"data": hexOf(anything.Data())}
	case events.AnyKind_inner:
		return object{"inner": readInner(events.Inner(anything.Struct()), depth)}
	case events.AnyKind_u16s:
		return object{"u16s": readU16s(capnp.UInt16List(anything.List()))}
	default:
		return object{"null": nil}
	}
}
