//! What goes into a program and comes out of it, within bounds.

use std::{io, os::fd::OwnedFd};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
};

/// What is kept of standard error: its end.
const KEPT: usize = 16 * 1024;

/// Writes all of it, unless nobody reads it.
pub(super) async fn write_input(end: OwnedFd, input: &[u8]) {
    let write = async {
        let mut end = pipe::Sender::from_owned_fd(end)?;
        end.write_all(input).await?;
        Ok::<(), io::Error>(())
    };
    // A program need not read its input, and one that has ended can't.
    if let Err(error) = write.await {
        tracing::debug!(%error, "The code did not read its whole input: {error}");
    }
}

/// All of an output. One that is longer than that is `over`, and gives none.
pub(super) async fn read_start(
    mut from: impl AsyncRead + Unpin,
    limit: u64,
    over: &(dyn Fn() + Sync),
) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let read = (&mut from).take(limit + 1).read_to_end(&mut text).await;
    if read.is_err() || text.len() as u64 > limit {
        over();
        return None;
    }
    Some(text)
}

/// The end of an output. More than the limit is `over`, and gives none.
pub(super) async fn read_end(
    mut from: impl AsyncRead + Unpin,
    limit: u64,
    over: &(dyn Fn() + Sync),
) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; KEPT];
    let mut total: u64 = 0;
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return Some(kept),
            Ok(length) => length,
        };
        total += length as u64;
        if total > limit {
            over();
            return None;
        }
        kept.extend_from_slice(&buffer[..length]);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}
