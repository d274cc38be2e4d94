//! What goes wrong, for users; and the codes that say so on the wire.

use std::fmt;

use thiserror::Error;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($variant,)*
            /// A code of a later version.
            Unknown(u16),
        }

        impl $name {
            pub fn number(self) -> u16 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Unknown(number) => number,
                }
            }
        }

        impl From<u16> for $name {
            fn from(number: u16) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Unknown(other),
                }
            }
        }

        /// The name as in wire.capnp; the number of an unknown one.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Unknown(number) => write!(f, "{number}"),
                }
            }
        }
    };
}

codes! {
    /// Why a connection ends. docs/wire.md, section 12.
    GoodbyeCode {
        Shutdown = 0 "shutdown",
        ProtocolError = 1 "protocolError",
        UnsupportedVersion = 2 "unsupportedVersion",
        InvalidName = 3 "invalidName",
        WrongName = 4 "wrongName",
        NameInUse = 5 "nameInUse",
        Duplicate = 6 "duplicate",
        Replaced = 7 "replaced",
        HandshakeTimeout = 8 "handshakeTimeout",
        KeepaliveTimeout = 9 "keepaliveTimeout",
        TooSlow = 10 "tooSlow",
        FrameTooLarge = 11 "frameTooLarge",
        CreditExceeded = 12 "creditExceeded",
        InvalidTable = 13 "invalidTable",
        UnknownId = 14 "unknownId",
        UnknownControl = 15 "unknownControl",
        UnknownCorrelation = 16 "unknownCorrelation",
        InternalError = 17 "internalError",
        NotPermitted = 18 "notPermitted",
    }
}

codes! {
    /// Why a request has no response.
    FailedCode {
        HandlerRaised = 0 "handlerRaised",
        NoHandler = 1 "noHandler",
        UnknownType = 2 "unknownType",
        IncompatibleType = 3 "incompatibleType",
        Unreadable = 4 "unreadable",
        Overloaded = 5 "overloaded",
    }
}

/// A rule that the peer broke, or another reason to end a connection: the goodbye's code, and words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: GoodbyeCode,
    pub text: String,
}

impl Fault {
    pub fn new(code: GoodbyeCode, text: impl Into<String>) -> Self {
        Fault { code, text: text.into() }
    }

    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Fault::new(GoodbyeCode::ProtocolError, text)
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// `None`: end of the stream, or a reset, without a goodbye.
    pub code: Option<GoodbyeCode>,
    pub text: String,
    pub by_peer: bool,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.by_peer { "the peer" } else { "this side" };
        match self.code {
            None => f.write_str("the stream ended without a goodbye"),
            Some(code) if self.text.is_empty() => write!(f, "{side} said goodbye ({code})"),
            Some(code) => write!(f, "{side} said goodbye ({code}): {}", self.text),
        }
    }
}

/// What a responder says in place of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: FailedCode,
    /// The class of the exception, or the like.
    pub type_name: String,
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.type_name.is_empty() {
            write!(f, ": {}", self.type_name)?;
        }
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

/// Why an endpoint could not be made, or could not serve or connect.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}: another process serves there, or it is no socket; choose another path, or make this one free")]
    InUse { path: String },
    #[error("no connection to endpoint {peer:?}: {ending}")]
    Refused { peer: String, ending: Ending },
    #[error("a connection to endpoint {peer:?} is up or under way; an endpoint has one to each other at most")]
    AlreadyConnected { peer: String },
    #[error("the endpoint has been stopped")]
    Stopped,
}

#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("{name:?} is no endpoint name: wanted 1 to 100 of A-Z a-z 0-9 . _ -, a letter or digit first")]
    Name { name: String },
    #[error("{field} is {value}; wanted {wanted}")]
    Limit { field: &'static str, value: u64, wanted: &'static str },
    #[error("the random bytes that tell one start of an endpoint from another cannot be read: {0}")]
    Random(#[source] std::io::Error),
    #[error("row of type id {type_id:#018x} ({name:?}): {problem}")]
    Row { type_id: u64, name: String, problem: String },
}

/// Why an event or a request was not sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    #[error(
        "type id {type_id:#018x} is not known to this endpoint; give its row to Endpoint::builder().types(), \
         `lahja-capn table` prints it"
    )]
    UnknownType { type_id: u64 },
    #[error("all 65,535 wire ids are taken; {name:?} cannot be declared")]
    TableFull { name: String },
    #[error(
        "{name} encodes to {size} bytes but peer {peer:?} accepts {limit} per frame (its hello says so). \
         Send less, or raise its limit"
    )]
    FrameTooLarge { name: String, size: usize, limit: u32, peer: String },
    #[error("type id {type_id:#018x} has a handler already: a request type has one at most")]
    HandlerExists { type_id: u64 },
    #[error("the endpoint has been stopped")]
    Stopped,
}

/// Why a request got no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("no connected peer takes requests of type id {type_id:#018x}")]
    NoResponder { type_id: u64 },
    #[error("request failed at peer {peer:?}: {failure}")]
    Failed { peer: String, failure: Failure },
    #[error("no answer within {0:?}")]
    TimedOut(std::time::Duration),
    #[error("the connection to peer {peer:?} ended before it answered")]
    Lost { peer: String },
    #[error("peer {peer:?} answered with type id {got:#018x}; wanted {wanted:#018x}")]
    UnexpectedType { peer: String, got: u64, wanted: u64 },
}

/// Why a received event or response cannot be read as the wanted struct.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    #[error("the message is of type id {got:#018x}; wanted {wanted:#018x}")]
    WrongType { got: u64, wanted: u64 },
    #[error("the message cannot be read: {0}")]
    Message(#[from] capnp::Error),
}
