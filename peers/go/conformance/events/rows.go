// Code generated from conformance.capnp by: lahja-capn table conformance.capnp --language go --type Everything --type Count --type Blob --type Late --type Evolving --type Ask --type Answer --package events. DO NOT EDIT.

package events

// TableKind is as in TypeRow of wire.capnp.
type TableKind uint16

const (
	TableKindStruct TableKind = 0
	TableKindOpaque TableKind = 1
)

// TableRow is one row of an id table.
type TableRow struct {
	// WireID is a suggestion; 0: only reachable from event types.
	WireID uint16
	TypeID uint64
	Kind   TableKind
	Name   string
	Layout []uint32
	// Reaches has the type ids of rows that go before this one, or with it.
	Reaches []uint64
}

// InnerRow is "conformance.capnp:Inner".
var InnerRow = TableRow{
	WireID: 0,
	TypeID: 0xf7a3d0925c4be186,
	Kind:   TableKindStruct,
	Name:   "conformance.capnp:Inner",
	Layout: []uint32{
		0x5af24eba, 0x66e6a62c, 0x66ba56f0,
	},
}

// EverythingRow is "conformance.capnp:Everything".
var EverythingRow = TableRow{
	WireID: 1,
	TypeID: 0xd8812462ab5a8c7e,
	Kind:   TableKindStruct,
	Name:   "conformance.capnp:Everything",
	Layout: []uint32{
		0x8945600e, 0x11941898, 0xc5b55228, 0xba28bef3, 0x68604221, 0x94255f7a, 0x34f057f7, 0xebe27d70,
		0xacc4eefe, 0x972976db, 0xd935b19f, 0xf4b38617, 0x19b6c759, 0xf49370d5, 0x362e54b4, 0x0c92ac5a,
		0xa5fa0e10, 0x6827d3a1, 0x1b078057, 0x0397fc13, 0x052e7654, 0x847be130, 0xbd14483a, 0x2324bb77,
		0x9a3f40dc, 0x19830242, 0x1b287266, 0xd954eb94, 0x2efc1f3a, 0x7ae248d8, 0x16ac0226, 0x886376f6,
		0x5b458af5, 0x2fafa325, 0xdb6d5bab, 0xd4095f9c, 0x886faab9, 0x2dc2cd97, 0x8945600e, 0x7a3d68c7,
		0x6817baf7, 0xdfd114a9, 0x2eeeb8a8, 0x85b41851, 0xf570ebce, 0x5ab0d90d, 0xa763b3d5, 0xe60b4d8d,
		0xa60570c9, 0x2e15ab54, 0x7ed06f33, 0x71e21424, 0x1458c6ca, 0x9ba7eda0, 0x539042ad, 0xa579f13d,
		0xf9e1ca71, 0x436ba8b7,
	},
	Reaches: []uint64{
		0xf7a3d0925c4be186,
	},
}

// CountRow is "conformance.capnp:Count".
var CountRow = TableRow{
	WireID: 2,
	TypeID: 0x957eff77fd367625,
	Kind:   TableKindStruct,
	Name:   "conformance.capnp:Count",
	Layout: []uint32{
		0x1ca12186,
	},
}

// BlobRow is "conformance.capnp:Blob".
var BlobRow = TableRow{
	WireID: 3,
	TypeID: 0xbd6ab42e92ca91f3,
	Kind:   TableKindStruct,
	Name:   "conformance.capnp:Blob",
	Layout: []uint32{
		0xe591d0f9, 0xf095a920,
	},
}

// LateRow is "conformance.capnp:Late".
var LateRow = TableRow{
	WireID: 4,
	TypeID: 0xe1365fae3bf72953,
	Kind:   TableKindStruct,
	Name:   "conformance.capnp:Late",
	Layout: []uint32{
		0x19b6c759,
	},
}

// EvolvingRow is "conformance.capnp:Evolving".
var EvolvingRow = TableRow{
	WireID: 5,
	TypeID: 0xb2f06c1d9a5e4837,
	Kind:   TableKindStruct,
	Name:   "conformance.capnp:Evolving",
	Layout: []uint32{
		0xe591d0f9, 0x19b6c759, 0x0c94eaf1, 0x444d0b29, 0x8e3c6827,
	},
	Reaches: []uint64{
		0xf7a3d0925c4be186,
	},
}

// AskRow is "conformance.capnp:Ask".
var AskRow = TableRow{
	WireID: 6,
	TypeID: 0xa326e161670aae37,
	Kind:   TableKindStruct,
	Name:   "conformance.capnp:Ask",
	Layout: []uint32{
		0x1ca12186, 0x8df2b0b4,
	},
}

// AnswerRow is "conformance.capnp:Answer".
var AnswerRow = TableRow{
	WireID: 7,
	TypeID: 0xc149867d7d86a874,
	Kind:   TableKindStruct,
	Name:   "conformance.capnp:Answer",
	Layout: []uint32{
		0x1ca12186, 0x19b6c759,
	},
}

// Rows are in an order in which they may be declared.
var Rows = []TableRow{
	InnerRow,
	EverythingRow,
	CountRow,
	BlobRow,
	LateRow,
	EvolvingRow,
	AskRow,
	AnswerRow,
}
