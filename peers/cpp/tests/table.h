// Generated from conformance.capnp by: lahja-capn table conformance.capnp --language c++ --type Everything --type Count --type Blob --type Late --type Evolving --type Ask --type Answer
// Do not edit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace conformance_table {

// As in TypeRow of wire.capnp.
enum class Kind : std::uint16_t { structure = 0, opaque = 1 };

struct TableRow {
  std::uint16_t wireId;  // a suggestion; 0: only reachable from event types
  std::uint64_t typeId;
  Kind kind;
  std::string_view name;
  const std::uint32_t* layout;
  std::size_t layoutSize;
  const std::uint64_t* reaches;  // type ids of rows that go before this one, or with it
  std::size_t reachesSize;
};

inline constexpr std::uint32_t innerRowLayout[] = {
    0x5af24ebaU, 0x66e6a62cU, 0x66ba56f0U,
};
inline constexpr TableRow innerRow{0, 0xf7a3d0925c4be186ULL, Kind::structure, "conformance.capnp:Inner",
    innerRowLayout, 3, nullptr, 0};

inline constexpr std::uint32_t everythingRowLayout[] = {
    0x8945600eU, 0x11941898U, 0xc5b55228U, 0xba28bef3U, 0x68604221U, 0x94255f7aU, 0x34f057f7U,
    0xebe27d70U, 0xacc4eefeU, 0x972976dbU, 0xd935b19fU, 0xf4b38617U, 0x19b6c759U, 0xf49370d5U,
    0x362e54b4U, 0x0c92ac5aU, 0xa5fa0e10U, 0x6827d3a1U, 0x1b078057U, 0x0397fc13U, 0x052e7654U,
    0x847be130U, 0xbd14483aU, 0x2324bb77U, 0x9a3f40dcU, 0x19830242U, 0x1b287266U, 0xd954eb94U,
    0x2efc1f3aU, 0x7ae248d8U, 0x16ac0226U, 0x886376f6U, 0x5b458af5U, 0x2fafa325U, 0xdb6d5babU,
    0xd4095f9cU, 0x886faab9U, 0x2dc2cd97U, 0x8945600eU, 0x7a3d68c7U, 0x6817baf7U, 0xdfd114a9U,
    0x2eeeb8a8U, 0x85b41851U, 0xf570ebceU, 0x5ab0d90dU, 0xa763b3d5U, 0xe60b4d8dU, 0xa60570c9U,
    0x2e15ab54U, 0x7ed06f33U, 0x71e21424U, 0x1458c6caU, 0x9ba7eda0U, 0x539042adU, 0xa579f13dU,
    0xf9e1ca71U, 0x436ba8b7U,
};
inline constexpr std::uint64_t everythingRowReaches[] = {
    0xf7a3d0925c4be186ULL,
};
inline constexpr TableRow everythingRow{1, 0xd8812462ab5a8c7eULL, Kind::structure, "conformance.capnp:Everything",
    everythingRowLayout, 58, everythingRowReaches, 1};

inline constexpr std::uint32_t countRowLayout[] = {
    0x1ca12186U,
};
inline constexpr TableRow countRow{2, 0x957eff77fd367625ULL, Kind::structure, "conformance.capnp:Count",
    countRowLayout, 1, nullptr, 0};

inline constexpr std::uint32_t blobRowLayout[] = {
    0xe591d0f9U, 0xf095a920U,
};
inline constexpr TableRow blobRow{3, 0xbd6ab42e92ca91f3ULL, Kind::structure, "conformance.capnp:Blob",
    blobRowLayout, 2, nullptr, 0};

inline constexpr std::uint32_t lateRowLayout[] = {
    0x19b6c759U,
};
inline constexpr TableRow lateRow{4, 0xe1365fae3bf72953ULL, Kind::structure, "conformance.capnp:Late",
    lateRowLayout, 1, nullptr, 0};

inline constexpr std::uint32_t evolvingRowLayout[] = {
    0xe591d0f9U, 0x19b6c759U, 0x0c94eaf1U, 0x444d0b29U, 0x8e3c6827U,
};
inline constexpr std::uint64_t evolvingRowReaches[] = {
    0xf7a3d0925c4be186ULL,
};
inline constexpr TableRow evolvingRow{5, 0xb2f06c1d9a5e4837ULL, Kind::structure, "conformance.capnp:Evolving",
    evolvingRowLayout, 5, evolvingRowReaches, 1};

inline constexpr std::uint32_t askRowLayout[] = {
    0x1ca12186U, 0x8df2b0b4U,
};
inline constexpr TableRow askRow{6, 0xa326e161670aae37ULL, Kind::structure, "conformance.capnp:Ask",
    askRowLayout, 2, nullptr, 0};

inline constexpr std::uint32_t answerRowLayout[] = {
    0x1ca12186U, 0x19b6c759U,
};
inline constexpr TableRow answerRow{7, 0xc149867d7d86a874ULL, Kind::structure, "conformance.capnp:Answer",
    answerRowLayout, 2, nullptr, 0};

// In an order in which they may be declared.
inline constexpr TableRow rows[] = {
    innerRow,
    everythingRow,
    countRow,
    blobRow,
    lateRow,
    evolvingRow,
    askRow,
    answerRow,
};
inline constexpr std::size_t rowCount = 8;

}  // namespace conformance_table
