//! The task of one connection: brings bytes from the stream to the hub, and from the hub to the stream.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};

use super::{now, Shared};
use crate::hub::{Decision, LinkId};
use crate::session::Batch;
use crate::wire::Decoder;

/// Runs until the connection is closed.
pub(super) async fn drive<R, W>(shared: Arc<Shared>, id: LinkId, wake: Arc<Notify>, reader: R, writer: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    tokio::select! {
        // What is readable is read before a deadline is judged: this process may be the one that was stopped.
        biased;
        () = read(&shared, id, reader) => {}
        () = write(&shared, id, &wake, writer) => {}
    }
    shared.hub().remove(id);
}

/// Ends never: the writing half ends the connection.
async fn read(shared: &Shared, id: LinkId, mut reader: impl AsyncRead + Unpin) {
    let mut decoder = Decoder::new();
    while more(&mut reader, &mut decoder).await {
        shared.hub().receive(id, &mut decoder, now());
        if !decide(shared, id, &mut reader, &mut decoder).await {
            break;
        }
    }
    shared.hub().receive_eof(id);
    std::future::pending().await
}

/// False: the stream has ended.
async fn more(reader: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> bool {
    match reader.read(decoder.spare()).await {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            decoder.advance(count);
            true
        }
    }
}

/// Settles who may have a name, if this connection's hello has come. False: the stream has ended meanwhile.
async fn decide(shared: &Shared, id: LinkId, reader: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> bool {
    loop {
        let decision = shared.hub().decide(id, now());
        let Decision::Probe { held, mut alive } = decision else {
            break;
        };
        let patience = sleep(shared.hub().local.limits.name_probe);
        tokio::pin!(patience);
        let lives = loop {
            // Bytes are kept, as far as there is room, so that a newcomer that goes away is noticed.
            let has_room = !decoder.spare().is_empty();
            tokio::select! {
                biased;
                result = &mut alive => break result.unwrap_or(false),
                () = &mut patience => break false,
                open = more(reader, decoder), if has_room => {
                    if !open {
                        return false;
                    }
                }
            }
        };
        shared.hub().probed(id, held, lives, now());
    }
    // Frames that came behind the hello.
    shared.hub().take_frames(id, decoder, now());
    true
}

async fn write(shared: &Shared, id: LinkId, wake: &Notify, mut writer: impl AsyncWrite + Unpin) {
    let mut batch = Batch::default();
    let mut is_shut = false;
    loop {
        batch.clear();
        let Some(deadline) = shared.hub().transmit(id, &mut batch, now()) else {
            return;
        };
        if !batch.is_empty() {
            let Ok(()) = write_batch(shared, id, wake, &mut writer, &batch).await else {
                // The reader finds out whether there is still something to read, such as the peer's goodbye.
                return ended(shared, id, wake).await;
            };
            continue;
        }
        if !is_shut && shared.hub().is_closing(id) {
            is_shut = true;
            // The peer may be gone; the reader notices.
            let _ = writer.shutdown().await;
        }
        tokio::select! {
            () = wake.notified() => {}
            () = until(deadline) => {}
        }
    }
}

async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Writes all of it, unless the connection ends before.
async fn write_batch(
    shared: &Shared,
    id: LinkId,
    wake: &Notify,
    writer: &mut (impl AsyncWrite + Unpin),
    batch: &Batch,
) -> io::Result<()> {
    let tail = batch.tail.as_deref().unwrap_or(&[]);
    for mut bytes in [batch.bytes.as_slice(), tail] {
        while !bytes.is_empty() {
            // A deadline holds also while the peer takes nothing.
            let Some(deadline) = shared.hub().deadline(id, now()) else {
                return Err(io::ErrorKind::ConnectionAborted.into());
            };
            tokio::select! {
                biased;
                count = writer.write(bytes) => {
                    let count = count?;
                    if count == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    bytes = &bytes[count..];
                    if batch.has_waited {
                        shared.hub().progress(id, now());
                    }
                }
                // What woke is looked at in the next turn, here or after the batch.
                () = wake.notified() => {}
                () = until(deadline) => {}
            }
        }
    }
    Ok(())
}

/// Writing failed: nothing can be said any more. Waits until the reader has read what the peer said before, its goodbye
/// perhaps, and has seen the end; or for as long as a goodbye would wait.
async fn ended(shared: &Shared, id: LinkId, wake: &Notify) {
    let patience = shared.hub().local.limits.close_timeout;
    let over = async {
        while !shared.hub().is_closed(id) {
            wake.notified().await;
        }
    };
    // Over or not: the caller closes the stream.
    let _ = tokio::time::timeout(patience, over).await;
}
