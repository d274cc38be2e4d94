// Package conformance is the program that all implementations of the wire format have: it runs the vectors of
// tests/vectors, and is one end of a connection that is told what to do by lines of JSON.
package conformance

import (
	peer "lahja-capn.example/peer"
	"lahja-capn.example/peer/conformance/events"
)

var schema = func() peer.Schema {
	rows := make([]peer.Row, 0, len(events.Rows))
	for _, row := range events.Rows {
		rows = append(rows, peer.Row{TypeID: row.TypeID, Kind: peer.Kind(row.Kind), Name: row.Name,
			Layout: row.Layout, Reaches: row.Reaches})
	}
	return peer.NewSchema(rows...)
}()

// The event types of conformance.capnp.
var (
	Everything = peer.Bind(schema, events.Everything_TypeID, events.NewRootEverything)
	Count      = peer.Bind(schema, events.Count_TypeID, events.NewRootCount)
	Blob       = peer.Bind(schema, events.Blob_TypeID, events.NewRootBlob)
	Late       = peer.Bind(schema, events.Late_TypeID, events.NewRootLate)
	Evolving   = peer.Bind(schema, events.Evolving_TypeID, events.NewRootEvolving)
	Ask        = peer.Bind(schema, events.Ask_TypeID, events.NewRootAsk)
	Answer     = peer.Bind(schema, events.Answer_TypeID, events.NewRootAnswer)
)

// types by their name in the schema, in the order of their declaration.
var (
	typeNames = []string{"Everything", "Count", "Blob", "Late", "Evolving", "Ask", "Answer"}
	types     = map[string]*peer.EventType{
		"Everything": Everything.EventType,
		"Count":      Count.EventType,
		"Blob":       Blob.EventType,
		"Late":       Late.EventType,
		"Evolving":   Evolving.EventType,
		"Ask":        Ask.EventType,
		"Answer":     Answer.EventType,
	}
	nameOf = func() map[uint64]string {
		names := map[uint64]string{}
		for name, t := range types {
			names[t.TypeID()] = name
		}
		return names
	}()
)
