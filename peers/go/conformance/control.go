package conformance

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// showControl is a control message as the JSON of the vectors: the one member of Control's union.
func showControl(message session.Control) (name string, value any) {
	switch m := message.(type) {
	case *session.Hello:
		return "hello", object{
			"protocolVersion": number(m.ProtocolVersion),
			"name":            m.Name,
			"instance":        hex.EncodeToString(m.Instance),
			"implementation":  m.Implementation,
			"version":         m.Version,
			"frameLimit":      number(m.FrameLimit),
			"keepaliveMs":     number(m.KeepaliveMs),
			"eventCredit":     u64(m.EventCredit),
			"requestCredit":   u64(m.RequestCredit),
			"features":        show(m.Features, same[string]),
			"types":           show(m.Types, showRow),
		}
	case *session.Declare:
		return "declare", object{"types": show(m.Types, showRow)}
	case *session.Subscriptions:
		return "subscriptions", object{
			"sequence":  u64(m.Sequence),
			"add":       show(m.Add, u64),
			"remove":    show(m.Remove, u64),
			"all":       m.All,
			"ackWanted": m.AckWanted,
		}
	case *session.SubscriptionsAck:
		return "subscriptionsAck", object{"sequence": u64(m.Sequence)}
	case *session.Credit:
		return "credit", object{"events": u64(m.Events), "requests": u64(m.Requests)}
	case *session.Failed:
		return "failed", object{"correlation": u64(m.Correlation), "code": enum(m.Code), "typeName": m.TypeName, "text": m.Text}
	case *session.Ping:
		return "ping", nil
	case *session.Pong:
		return "pong", nil
	case *session.Dropped:
		return "dropped", object{"counts": show(m.Counts, func(c session.DropCount) any {
			return object{"typeId": u64(c.TypeID), "count": u64(c.Count)}
		})}
	case *session.Goodbye:
		return "goodbye", object{"code": enum(m.Code), "text": m.Text}
	}
	panic(failure{fmt.Errorf("%T is no control message", message)})
}

func show[T any](values []T, one func(T) any) array {
	shown := array{}
	for _, value := range values {
		shown = append(shown, one(value))
	}
	return shown
}

func showRow(row session.TableRow) any {
	return object{
		"wireId": number(row.WireID),
		"kind":   enum(row.Kind),
		"typeId": u64(row.TypeID),
		"name":   row.Name,
		"layout": show(row.Layout, number[uint32]),
	}
}

// buildControl is the reverse, of {"hello": {…}} and the like.
func buildControl(control object) session.Control {
	for name, v := range control {
		value, _ := v.(object)
		switch name {
		case "hello":
			return &session.Hello{
				ProtocolVersion: small[uint16](value["protocolVersion"]),
				Name:            to[string](value["name"]),
				Instance:        toData(value["instance"]),
				Implementation:  to[string](value["implementation"]),
				Version:         to[string](value["version"]),
				FrameLimit:      small[uint32](value["frameLimit"]),
				KeepaliveMs:     small[uint32](value["keepaliveMs"]),
				EventCredit:     toU64(value["eventCredit"]),
				RequestCredit:   toU64(value["requestCredit"]),
				Features:        each(value["features"], to[string]),
				Types:           each(value["types"], buildRow),
			}
		case "declare":
			return &session.Declare{Types: each(value["types"], buildRow)}
		case "subscriptions":
			return &session.Subscriptions{
				Sequence:  toU64(value["sequence"]),
				Add:       each(value["add"], toU64),
				Remove:    each(value["remove"], toU64),
				All:       to[bool](value["all"]),
				AckWanted: to[bool](value["ackWanted"]),
			}
		case "subscriptionsAck":
			return &session.SubscriptionsAck{Sequence: toU64(value["sequence"])}
		case "credit":
			return &session.Credit{Events: toU64(value["events"]), Requests: toU64(value["requests"])}
		case "failed":
			return &session.Failed{
				Correlation: toU64(value["correlation"]),
				Code:        toEnum(value["code"], wirecapnp.FailedCodeFromString),
				TypeName:    to[string](value["typeName"]),
				Text:        to[string](value["text"]),
			}
		case "ping":
			return &session.Ping{}
		case "pong":
			return &session.Pong{}
		case "dropped":
			return &session.Dropped{Counts: each(value["counts"], func(v any) session.DropCount {
				count := to[object](v)
				return session.DropCount{TypeID: toU64(count["typeId"]), Count: toU64(count["count"])}
			})}
		case "goodbye":
			return &session.Goodbye{Code: toEnum(value["code"], wirecapnp.GoodbyeCodeFromString), Text: to[string](value["text"])}
		}
	}
	panic(failure{fmt.Errorf("%v is no control message", control)})
}

func each[T any](v any, one func(any) T) []T {
	var values []T
	for _, value := range to[array](v) {
		values = append(values, one(value))
	}
	return values
}

func buildRow(v any) session.TableRow {
	row := to[object](v)
	return session.TableRow{WireID: small[uint16](row["wireId"]), Row: session.Row{
		TypeID: toU64(row["typeId"]),
		Kind:   toEnum(row["kind"], wirecapnp.KindFromString),
		Name:   to[string](row["name"]),
		Layout: each(row["layout"], small[uint32]),
	}}
}

// codeValue is a code as the vectors write it: its name, or the number of an unknown one.
func codeValue(name string) any {
	if n, err := strconv.ParseUint(name, 10, 16); err == nil {
		return number(uint16(n))
	}
	return name
}
