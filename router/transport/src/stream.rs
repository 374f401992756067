//! The two halves of streams.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use quinn::VarInt;

use crate::connection::QuicConnection;
use crate::error::{ConnectionError, ReadError, WriteError, code_of};
use crate::memory;

/// The writing half of a stream. Dropped without [`reset`](Self::reset), it finishes: what was written still arrives.
pub struct SendStream(SendInner);

enum SendInner {
    Quic { stream: quinn::SendStream, connection: Arc<QuicConnection> },
    Memory(memory::SendHalf),
}

/// The reading half of a stream. Dropped before its end, it tells the writer to stop with code 0.
pub struct RecvStream {
    inner: RecvInner,
    /// A stream that failed fails the same way for ever.
    failed: Option<ReadError>,
}

enum RecvInner {
    Quic { stream: quinn::RecvStream, connection: Arc<QuicConnection> },
    Memory(memory::RecvHalf),
}

impl SendStream {
    pub(crate) fn quic(stream: quinn::SendStream, connection: Arc<QuicConnection>) -> Self {
        Self(SendInner::Quic { stream, connection })
    }

    pub(crate) fn memory(half: memory::SendHalf) -> Self {
        Self(SendInner::Memory(half))
    }

    /// Writes all chunks, waiting for the reader's credit, without copying.
    ///
    /// Written bytes are taken off the front of `bufs`: chunks written whole are left empty, one written in part keeps
    /// its rest. After a cancelled call, another one with the same `bufs` goes on where it was, and nothing is lost or
    /// doubled.
    ///
    /// # Errors
    /// When the reader stopped the stream, this side ended it, or the connection has ended.
    pub async fn write_chunks(&mut self, bufs: &mut [Bytes]) -> Result<(), WriteError> {
        match &mut self.0 {
            SendInner::Quic { stream, connection } => {
                let mut rest = bufs;
                while let Some(first) = rest.iter().position(|chunk| !chunk.is_empty()) {
                    rest = &mut rest[first..];
                    let written = stream.write_chunks(rest).await.map_err(|error| write_error(connection, &error))?;
                    rest = &mut rest[written.chunks..];
                }
                Ok(())
            }
            SendInner::Memory(half) => half.write_chunks(bufs).await,
        }
    }

    /// Writes one chunk without copying. Not cancel-safe: what a cancelled call has written is unknown.
    ///
    /// # Errors
    /// As for [`write_chunks`](Self::write_chunks).
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        self.write_chunks(&mut [chunk]).await
    }

    /// Copies and writes all of `bytes`. Not cancel-safe: what a cancelled call has written is unknown.
    ///
    /// # Errors
    /// As for [`write_chunks`](Self::write_chunks).
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_chunk(Bytes::copy_from_slice(bytes)).await
    }

    /// Ends the stream: the reader gets everything written, then the end.
    ///
    /// # Errors
    /// [`WriteError::Finished`] when it was finished or reset before.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        match &mut self.0 {
            SendInner::Quic { stream, .. } => stream.finish().map_err(|_| WriteError::Finished),
            SendInner::Memory(half) => half.finish(),
        }
    }

    /// Gives the stream up: the reader gets an error with `code`, and may lose what it has not read. Does nothing to a
    /// stream that has ended.
    pub fn reset(&mut self, code: u32) {
        match &mut self.0 {
            SendInner::Quic { stream, .. } => {
                let _ = stream.reset(VarInt::from_u32(code));
            }
            SendInner::Memory(half) => half.reset(code),
        }
    }

    /// Waits until the reader stops the stream (`Some(code)`), or until the stream is finished and its bytes have
    /// reached the peer (`None`; its program may not have read them yet). Cancel-safe; borrows nothing.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn stopped(&self) -> Pin<Box<dyn Future<Output = Result<Option<u32>, ConnectionError>> + Send + 'static>> {
        match &self.0 {
            SendInner::Quic { stream, connection } => {
                let (stopped, connection) = (stream.stopped(), connection.clone());
                Box::pin(async move {
                    match stopped.await {
                        Ok(code) => Ok(code.map(|code| code_of(code.into_inner()))),
                        Err(quinn::StoppedError::ConnectionLost(error)) => Err(connection.error(&error)),
                        // Early data is never enabled.
                        Err(quinn::StoppedError::ZeroRttRejected) => Ok(None),
                    }
                })
            }
            SendInner::Memory(half) => Box::pin(half.stopped()),
        }
    }

    /// Bytes of streams with a higher priority are sent first; all begin with 0. Without effect in memory.
    pub fn set_priority(&self, priority: i32) {
        match &self.0 {
            SendInner::Quic { stream, .. } => {
                let _ = stream.set_priority(priority);
            }
            SendInner::Memory(_) => {}
        }
    }
}

impl RecvStream {
    pub(crate) fn quic(stream: quinn::RecvStream, connection: Arc<QuicConnection>) -> Self {
        Self { inner: RecvInner::Quic { stream, connection }, failed: None }
    }

    pub(crate) fn memory(half: memory::RecvHalf) -> Self {
        Self { inner: RecvInner::Memory(half), failed: None }
    }

    /// Waits for bytes and puts the next chunks, in order and without copying, into the front of `bufs`. Returns how
    /// many, or `None` at the end of the stream. Chunks do not follow the writer's calls. Cancel-safe.
    ///
    /// # Errors
    /// When the writer reset the stream, this side stopped it, or the connection has ended.
    pub async fn read_chunks(&mut self, bufs: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let read = match &mut self.inner {
            RecvInner::Quic { stream, connection } => {
                stream.read_chunks(bufs).await.map_err(|error| read_error(connection, &error))
            }
            RecvInner::Memory(half) => half.read_chunks(bufs).await,
        };
        if let Err(error) = &read {
            self.failed = Some(error.clone());
        }
        read
    }

    /// The next chunk; a convenience over [`read_chunks`](Self::read_chunks). Cancel-safe.
    ///
    /// # Errors
    /// As for [`read_chunks`](Self::read_chunks).
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut one = [Bytes::new()];
        let read = self.read_chunks(&mut one).await?;
        let [chunk] = one;
        Ok(read.map(|_| chunk))
    }

    /// Tells the writer to stop with `code` and throws away what is unread. Does nothing to a stream that has ended.
    pub fn stop(&mut self, code: u32) {
        if self.failed.is_some() {
            return;
        }
        match &mut self.inner {
            RecvInner::Quic { stream, .. } => {
                if stream.stop(VarInt::from_u32(code)).is_ok() {
                    self.failed = Some(ReadError::Stopped);
                }
            }
            RecvInner::Memory(half) => {
                if half.stop(code) {
                    self.failed = Some(ReadError::Stopped);
                }
            }
        }
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SendStream")
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("RecvStream")
    }
}

fn write_error(connection: &QuicConnection, error: &quinn::WriteError) -> WriteError {
    match error {
        quinn::WriteError::ConnectionLost(lost) => WriteError::ConnectionLost(connection.error(lost)),
        other => WriteError::from_quinn(other),
    }
}

fn read_error(connection: &QuicConnection, error: &quinn::ReadError) -> ReadError {
    match error {
        quinn::ReadError::ConnectionLost(lost) => ReadError::ConnectionLost(connection.error(lost)),
        other => ReadError::from_quinn(other),
    }
}
