//! One TCP or TLS connection to a broker, up to the broker's answer to our connect.
//!
//! TCP_NODELAY is set: with Nagle's algorithm acknowledgements wait for the
//! peer's delayed ACK, measured as 433 instead of 13,279 messages/s with 20
//! messages in flight.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::tokio_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use super::options::Options;
use super::wire::{self, ConnAck, Decoder, Packet};

/// Connecting, TLS and the broker's answer together.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Read at once, and allocated at once: messages are slices of it.
const READ_BYTES: usize = 64 << 10;
/// With less room than this a new buffer is better than a short read.
const READ_BYTES_MIN: usize = 8 << 10;

/// Why there is no connection (any more).
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Host name, TCP or TLS.
    #[error("cannot connect to {host}:{port}: {source}")]
    Connect {
        host: String,
        port: u16,
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("no answer from {host}:{port} within {} s", CONNECT_TIME_MAX.as_secs())]
    Timeout { host: String, port: u16 },
    /// The broker does not want us.
    #[error("broker refused the connection: {0}")]
    Refused(String),
    /// The broker does not want one of our filters.
    #[error("broker refused the subscription to {filter:?}: {reason}")]
    FilterRefused { filter: String, reason: String },
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// The broker ended it without a word.
    #[error("connection closed by the broker")]
    Closed,
    /// The broker ended it and said why.
    #[error("broker disconnected us: {0}")]
    Disconnected(String),
    /// A dead connection that nobody closed.
    #[error("no sign of life from the broker for {} s", .0.as_secs())]
    Silent(Duration),
    /// The broker does not speak MQTT.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// What must be durable before we go on could not be written.
    #[error("cannot store the state of the session: {0}")]
    Store(#[from] crate::store::Error),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The receiving side.
pub(super) struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    input: BytesMut,
    decoder: Decoder,
}

/// The sending side: packets are collected and written together.
pub(super) struct Writer {
    stream: WriteHalf<Box<dyn Stream>>,
    /// What is to be written.
    pub(super) out: BytesMut,
    unflushed: bool,
}

/// Connects and waits for the broker's answer.
///
/// # Errors
/// When there is no connection within 5 s, or the broker refuses us.
pub(super) async fn connect(options: &Options) -> Result<(Reader, Writer, ConnAck), Error> {
    match tokio::time::timeout(CONNECT_TIME_MAX, handshake(options)).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout {
            host: options.host.clone(),
            port: options.port,
        }),
    }
}

async fn handshake(options: &Options) -> Result<(Reader, Writer, ConnAck), Error> {
    let stream = open(options).await.map_err(|source| Error::Connect {
        host: options.host.clone(),
        port: options.port,
        source,
    })?;
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = Reader {
        stream: reader,
        input: BytesMut::new(),
        decoder: Decoder::new(options.protocol, options.packet_max),
    };
    let mut writer = Writer {
        stream: writer,
        out: BytesMut::new(),
        unflushed: false,
    };
    wire::connect(options, &mut writer.out);
    writer.write().await.map_err(Error::Lost)?;
    loop {
        match reader.next()? {
            Some(Packet::ConnAck(ack)) => {
                return match ack.refused {
                    Some(reason) => Err(Error::Refused(reason)),
                    None => Ok((reader, writer, ack)),
                };
            }
            Some(Packet::Disconnect(reason)) => return Err(Error::Refused(reason)),
            Some(other) => {
                let text = format!("{other:?} before the answer to our connect");
                return Err(wire::Error::Malformed(text).into());
            }
            None => {
                reader.fill().await?;
            }
        }
    }
}

async fn open(options: &Options) -> io::Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect((options.host.as_str(), options.port)).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = &options.tls else {
        return Ok(Box::new(tcp));
    };
    let name = ServerName::try_from(options.host.clone())
        .map_err(|err| io::Error::new(io::ErrorKind::InvalidInput, err))?;
    let stream = TlsConnector::from(Arc::clone(tls))
        .connect(name, tcp)
        .await?;
    Ok(Box::new(stream))
}

impl Reader {
    /// The next packet of what was read; `None` when more has to be read first.
    ///
    /// # Errors
    /// When it is not MQTT.
    pub(super) fn next(&mut self) -> Result<Option<Packet>, wire::Error> {
        self.decoder.decode(&mut self.input)
    }

    /// Reads what there is, and waits for it if there is nothing. Gives the number
    /// of bytes. Cancel-safe.
    ///
    /// # Errors
    /// When the connection broke or was closed.
    pub(super) async fn fill(&mut self) -> Result<usize, Error> {
        if self.input.capacity() - self.input.len() < READ_BYTES_MIN {
            self.input.reserve(READ_BYTES);
        }
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err(Error::Closed),
            Ok(bytes) => Ok(bytes),
            Err(err) => Err(Error::Lost(err)),
        }
    }
}

impl Writer {
    /// Whether [`Writer::write`] has anything to do.
    pub(super) fn is_dirty(&self) -> bool {
        self.unflushed || !self.out.is_empty()
    }

    /// Writes what was collected. Cancel-safe.
    ///
    /// # Errors
    /// When the connection broke.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            self.unflushed = true;
            self.stream.write_buf(&mut self.out).await?;
        }
        self.stream.flush().await?;
        self.unflushed = false;
        Ok(())
    }
}

/// Writes what was collected, says that it was the last, and reads until the
/// broker has closed too. A socket that is closed while the broker still sends
/// is reset, and then mosquitto drops acknowledgements that it has not read.
pub(super) async fn close(mut reader: Reader, mut writer: Writer) {
    let ended = async {
        writer.write().await?;
        writer.stream.shutdown().await
    };
    if ended.await.is_err() {
        return;
    }
    while reader.fill().await.is_ok() {
        reader.input.clear();
    }
}
