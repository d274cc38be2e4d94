//! Frames: the 16 bytes before a message, the segment table behind them, and nothing about what messages mean.
//! docs/wire.md, section 2.

pub mod decoder;
pub mod frame;
pub mod limits;

pub use decoder::{Decoder, Rules};
pub use frame::{Frame, FrameKind, Header};
