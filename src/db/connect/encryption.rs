//! The request for TLS, and its handshake.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use super::{coded_stream::CodedStream, failure::Failure, socket::Socket};
use crate::db::tls::{SslMode, TlsSettings};

/// The message SSLRequest. Source:
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The answers to it.
const YES: u8 = b'S';
const NO: u8 = b'N';

/// A socket with TLS.
type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A stream to PostgreSQL, with or without TLS.
pub(super) type Stream = CodedStream<Either<Socket, Encrypted>>;

/// Whether a connection uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    No,
    /// If the server has it.
    IfOffered,
    Yes,
}

impl Encryption {
    /// Returns what to try in turn for a mode.
    pub(super) fn attempts(mode: SslMode) -> &'static [Encryption] {
        match mode {
            SslMode::Disable => &[Encryption::No],
            SslMode::Allow => &[Encryption::No, Encryption::Yes],
            SslMode::Prefer => &[Encryption::IfOffered, Encryption::No],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Yes],
        }
    }

    /// Starts TLS on a socket to the host `name`, or leaves it unencrypted. Fails if TLS is required and
    /// not offered, or if the handshake fails.
    pub(super) async fn begin(
        self,
        mut socket: Socket,
        name: &str,
        settings: &TlsSettings,
        mut connector: MakeRustlsConnect,
    ) -> Result<Stream, Failure> {
        let is_wanted = match self {
            Encryption::No => false,
            Encryption::Yes if settings.is_direct => true,
            Encryption::Yes | Encryption::IfOffered => {
                let is_offered = offers_tls(&mut socket).await.map_err(Failure::Socket)?;
                if !is_offered && self == Encryption::Yes {
                    return Err(Failure::NoTls);
                }
                is_offered
            }
        };
        if !is_wanted {
            return Ok(CodedStream::new(Either::Left(socket)));
        }
        let handshake = MakeTlsConnect::<Socket>::make_tls_connect(&mut connector, name);
        let Ok(handshake) = handshake;
        let encrypted = handshake
            .connect(socket)
            .await
            .map_err(Failure::Handshake)?;
        Ok(CodedStream::new(Either::Right(encrypted)))
    }
}

/// Asks a server whether it has TLS. Reads one byte, so that plain text that a man in the middle sends is
/// never taken for decrypted data (CVE-2021-23222).
async fn offers_tls(socket: &mut Socket) -> io::Result<bool> {
    socket.write_all(&SSL_REQUEST).await?;
    match socket.read_u8().await? {
        YES => Ok(true),
        NO => Ok(false),
        other => Err(io::Error::other(format!(
            "unexpected answer {other:#04x} to the request for TLS; the port may belong to another \
             service, or PostgreSQL is out of resources"
        ))),
    }
}

impl Stream {
    /// Returns whether TLS has begun.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.get_ref(), Either::Right(_))
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        match self.get_ref() {
            Either::Left(_) => ChannelBinding::none(),
            Either::Right(encrypted) => encrypted.channel_binding(),
        }
    }
}

/// Tells tokio-postgres that TLS has begun, or is not wanted.
pub(super) struct Begun;

impl TlsConnect<Stream> for Begun {
    type Stream = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn connect(self, stream: Stream) -> Self::Future {
        ready(Ok(stream))
    }
}
