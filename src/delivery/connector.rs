//! Opens the connections of HTTP: to checked addresses only, straight or by a proxy.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::address::{Names, Policy, bare};
use super::proxy::{Proxy, is_https, port_of};

/// Connects to where a request goes, or to its proxy.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) policy: Policy,
    pub(super) proxy: Option<Arc<Proxy>>,
    /// For resolving and connecting together, the tunnel included.
    pub(super) timeout: Duration,
    pub(super) names: Names,
}

impl Connector {
    async fn open(&self, uri: &Uri) -> io::Result<Link> {
        let host = uri.host().unwrap_or_default();
        let is_https = is_https(uri);
        let port = port_of(uri);
        let (names, policy, timeout) = (&self.names, self.policy, self.timeout);
        let Some(proxy) = &self.proxy else {
            let stream = names.connect(policy, bare(host), port, timeout).await?;
            return Ok(Link {
                stream,
                is_proxied: false,
            });
        };
        let connecting = names.connect(policy, &proxy.host, proxy.port, timeout);
        let mut stream = connecting.await?;
        if is_https {
            proxy.tunnel(&mut stream, host, port).await?;
        }
        Ok(Link {
            stream,
            is_proxied: !is_https,
        })
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Link>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let link = tokio::time::timeout(connector.timeout, connector.open(&uri))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connecting timed out"))??;
            link.stream.set_nodelay(true)?;
            Ok(TokioIo::new(link))
        })
    }
}

/// A connection. One to a proxy is asked for whole addresses instead of paths.
pub(super) struct Link {
    stream: TcpStream,
    is_proxied: bool,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxied)
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn odd_spellings_of_an_address_are_checked_after_resolving() {
        let timeout = Duration::from_secs(5);
        for uri in [
            "http://169.254.169.254/latest",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
            "http://0/",
        ] {
            let mut connector = Connector {
                policy: Policy::Operator,
                proxy: None,
                timeout,
                names: Names::default(),
            };
            let called = tower::Service::call(&mut connector, uri.parse().unwrap());
            let err = called.await.err().unwrap();
            assert_eq!(err.kind(), io::ErrorKind::PermissionDenied, "{uri}: {err}");
        }
    }
}
