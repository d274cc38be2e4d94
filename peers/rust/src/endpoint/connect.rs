//! Connecting to another endpoint, or over a stream that is there already.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::{drive, now, Endpoint, Shared};
use crate::error::{ConnectError, Ending, GoodbyeCode};
use crate::session::Role;

impl Endpoint {
    /// Connects to the endpoint named `peer` that serves at this path. Returns when the connection is up. Dropping the
    /// future does not take the attempt back.
    ///
    /// # Errors
    /// `Refused` says with which goodbye it ended. After `nameInUse`, `wrongName`, `invalidName` and `unsupportedVersion`
    /// trying again the same way is pointless.
    pub async fn connect(&self, path: impl AsRef<Path>, peer: &str) -> Result<(), ConnectError> {
        self.may_reach(peer)?;
        let path = path.as_ref();
        let stream = UnixStream::connect(path).await.map_err(|source| ConnectError::Io {
            what: format!("cannot connect to endpoint {peer:?} at {}", path.display()),
            source,
        })?;
        let (reader, writer) = stream.into_split();
        self.connect_over(reader, writer, peer).await
    }

    /// Connects over a stream that was opened already, such as TCP or TLS.
    pub async fn connect_over<R, W>(&self, reader: R, writer: W, peer: &str) -> Result<(), ConnectError>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        self.may_reach(peer)?;
        let (tell, outcome) = oneshot::channel();
        let role = Role::Connector { expected: peer.to_owned() };
        start(self.shared(), role, Some(tell), reader, writer)?;
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ending)) if ending.code == Some(GoodbyeCode::Duplicate) => self.survivor(peer, ending).await,
            Ok(Err(ending)) => Err(ConnectError::Refused { peer: peer.to_owned(), ending }),
            Err(_) => Err(ConnectError::Stopped),
        }
    }

    /// Takes a stream that another endpoint has opened. Returns at once; [`Endpoint::notices`] says what comes of it.
    pub fn accept_over<R, W>(&self, reader: R, writer: W) -> Result<(), ConnectError>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        start(self.shared(), Role::Acceptor, None, reader, writer)
    }

    fn may_reach(&self, peer: &str) -> Result<(), ConnectError> {
        if self.hub().is_reaching(peer) {
            return Err(ConnectError::AlreadyConnected { peer: peer.to_owned() });
        }
        Ok(())
    }

    /// Two connections crossed, and ours was the one to go: counts as connected when the other is up.
    async fn survivor(&self, peer: &str, ending: Ending) -> Result<(), ConnectError> {
        let patience = self.hub().local.limits.handshake_timeout;
        let up = self.shared().until(|hub| hub.up_link(peer).map(|_| ()));
        tokio::time::timeout(patience, up).await.map_err(|_| ConnectError::Refused { peer: peer.to_owned(), ending })
    }
}

pub(super) fn start<R, W>(
    shared: &Arc<Shared>,
    role: Role,
    outcome: Option<oneshot::Sender<Result<(), Ending>>>,
    reader: R,
    writer: W,
) -> Result<(), ConnectError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut hub = shared.hub();
    if hub.stopped {
        return Err(ConnectError::Stopped);
    }
    let (id, wake) = hub.open(role, outcome, now());
    drop(hub);
    tokio::spawn(drive::drive(Arc::clone(shared), id, wake, reader, writer));
    Ok(())
}
