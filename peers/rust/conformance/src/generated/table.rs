// Generated from conformance.capnp by: lahja-capn table conformance.capnp --language rust
// Do not edit.

/// As in TypeRow of wire.capnp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Struct = 0,
    Opaque = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// A suggestion; 0: only reachable from event types.
    pub wire_id: u16,
    pub type_id: u64,
    pub kind: Kind,
    pub name: &'static str,
    pub layout: &'static [u32],
    /// Type ids of rows that go before this one, or with it.
    pub reaches: &'static [u64],
}

pub const INNER_ROW: TableRow = TableRow {
    wire_id: 1,
    type_id: 0xf7a3d0925c4be186,
    kind: Kind::Struct,
    name: "conformance.capnp:Inner",
    layout: &[0x5af24eba, 0x66e6a62c, 0x66ba56f0],
    reaches: &[],
};

pub const EVERYTHING_ROW: TableRow = TableRow {
    wire_id: 2,
    type_id: 0xd8812462ab5a8c7e,
    kind: Kind::Struct,
    name: "conformance.capnp:Everything",
    layout: &[
        0x8945600e, 0x11941898, 0xc5b55228, 0xba28bef3, 0x68604221, 0x94255f7a, 0x34f057f7,
        0xebe27d70, 0xacc4eefe, 0x972976db, 0xd935b19f, 0xf4b38617, 0x19b6c759, 0xf49370d5,
        0x362e54b4, 0x0c92ac5a, 0xa5fa0e10, 0x6827d3a1, 0x1b078057, 0x0397fc13, 0x052e7654,
        0x847be130, 0xbd14483a, 0x2324bb77, 0x9a3f40dc, 0x19830242, 0x1b287266, 0xd954eb94,
        0x2efc1f3a, 0x7ae248d8, 0x16ac0226, 0x886376f6, 0x5b458af5, 0x2fafa325, 0xdb6d5bab,
        0xd4095f9c, 0x886faab9, 0x2dc2cd97, 0x8945600e, 0x7a3d68c7, 0x6817baf7, 0xdfd114a9,
        0x2eeeb8a8, 0x85b41851, 0xf570ebce, 0x5ab0d90d, 0xa763b3d5, 0xe60b4d8d, 0xa60570c9,
        0x2e15ab54, 0x7ed06f33, 0x71e21424, 0x1458c6ca, 0x9ba7eda0, 0x539042ad, 0xa579f13d,
        0xf9e1ca71, 0x436ba8b7,
    ],
    reaches: &[0xf7a3d0925c4be186],
};

pub const COUNT_ROW: TableRow = TableRow {
    wire_id: 3,
    type_id: 0x957eff77fd367625,
    kind: Kind::Struct,
    name: "conformance.capnp:Count",
    layout: &[0x1ca12186],
    reaches: &[],
};

pub const BLOB_ROW: TableRow = TableRow {
    wire_id: 4,
    type_id: 0xbd6ab42e92ca91f3,
    kind: Kind::Struct,
    name: "conformance.capnp:Blob",
    layout: &[0xe591d0f9, 0xf095a920],
    reaches: &[],
};

pub const LATE_ROW: TableRow = TableRow {
    wire_id: 5,
    type_id: 0xe1365fae3bf72953,
    kind: Kind::Struct,
    name: "conformance.capnp:Late",
    layout: &[0x19b6c759],
    reaches: &[],
};

pub const EVOLVING_ROW: TableRow = TableRow {
    wire_id: 6,
    type_id: 0xb2f06c1d9a5e4837,
    kind: Kind::Struct,
    name: "conformance.capnp:Evolving",
    layout: &[0xe591d0f9, 0x19b6c759, 0x0c94eaf1, 0x444d0b29, 0x8e3c6827],
    reaches: &[0xf7a3d0925c4be186],
};

pub const ASK_ROW: TableRow = TableRow {
    wire_id: 7,
    type_id: 0xa326e161670aae37,
    kind: Kind::Struct,
    name: "conformance.capnp:Ask",
    layout: &[0x1ca12186, 0x8df2b0b4],
    reaches: &[],
};

pub const ANSWER_ROW: TableRow = TableRow {
    wire_id: 8,
    type_id: 0xc149867d7d86a874,
    kind: Kind::Struct,
    name: "conformance.capnp:Answer",
    layout: &[0x1ca12186, 0x19b6c759],
    reaches: &[],
};

/// In an order in which they may be declared.
pub static ROWS: &[TableRow] = &[
    INNER_ROW,
    EVERYTHING_ROW,
    COUNT_ROW,
    BLOB_ROW,
    LATE_ROW,
    EVOLVING_ROW,
    ASK_ROW,
    ANSWER_ROW,
];
