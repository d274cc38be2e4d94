//! Serving on a Unix socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::{connect, Endpoint, Shared};
use crate::error::ConnectError;
use crate::session::Role;

/// The listening socket; dropping it stops listening and removes the file. Connections that are there stay.
pub struct Serving {
    path: PathBuf,
    /// Which file is ours: another process may have put its own in its place.
    inode: (u64, u64),
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // It may have been removed in this moment; then that is done.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Endpoint {
    /// Serves at this path: accepts every endpoint of this user that connects. Returns when the socket listens.
    ///
    /// A socket file that nobody listens at, left by a process that died, is replaced.
    pub async fn serve(&self, path: impl AsRef<Path>) -> Result<Serving, ConnectError> {
        let path = path.as_ref();
        let failed = |source| ConnectError::Io { what: format!("cannot serve at {}", path.display()), source };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // A file of another kind refuses connections, too.
                let is_socket = fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket();
                match UnixStream::connect(path).await {
                    Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => {}
                    _ => return Err(ConnectError::InUse { path: path.display().to_string() }),
                }
                fs::remove_file(path).map_err(failed)?;
                UnixListener::bind(path).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        // Only this user may connect.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let inode = inode(path).map_err(failed)?;
        let task = tokio::spawn(accept(Arc::clone(self.shared()), listener));
        Ok(Serving { path: path.to_owned(), inode, task })
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

async fn accept(shared: Arc<Shared>, listener: UnixListener) {
    loop {
        let stopped = shared.stop.notified();
        tokio::pin!(stopped);
        stopped.as_mut().enable();
        if shared.hub().stopped {
            return;
        }
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of file descriptors, most likely. The connection waits in the queue; so do we, or this would
                    // spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stopped => return,
        };
        let (reader, writer) = stream.into_split();
        if connect::start(&shared, Role::Acceptor, None, reader, writer).is_err() {
            return;
        }
    }
}
