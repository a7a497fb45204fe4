//! Requests whose target holds bytes that stand for themselves: `?query=up{job="x"}`.
//!
//! Prometheus and Alertmanager take every printable byte in a request target, so people
//! and scripts send `"`, `<` and names of other alphabets as they are. The HTTP library
//! refuses `"`, `<`, `>` and what is not UTF-8 in a query, `<`, `>`, `^` and the
//! backtick in a path, cuts the target at a `#`, and answers 400 without a word; it has
//! no option for it. So the bytes are percent-encoded on their way in, in the target of
//! a request line and nowhere else.
//!
//! For that the stream is followed from request to request, by the same rules as the
//! library: the head ends with an empty line, the body is as long as its one
//! `Content-Length` says. Where the end of a body is not plain from the head (chunked,
//! two lengths, an upgrade) nothing is changed on that connection any more: its later
//! requests must be encoded, as the standard wants. A body is passed on without a look
//! at it, a head costs one step for each byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept of a header line: enough for a `Content-Length`.
const LINE_MAX: usize = 64;

/// A stream of requests whose targets the HTTP library takes.
pub(super) struct PlainTargets<S> {
    stream: S,
    requests: Requests,
    /// Read and encoded, but there was no room for it.
    held: Bytes,
}

impl<S: Unpin> PlainTargets<S> {
    /// Wraps a stream at its beginning.
    pub(super) fn new(stream: S) -> PlainTargets<S> {
        PlainTargets {
            stream,
            requests: Requests::default(),
            held: Bytes::new(),
        }
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let fits = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held.split_to(fits));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PlainTargets<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            let Some(encoded) = self.requests.pass(&buf.filled()[before..]) else {
                return Poll::Ready(Ok(()));
            };
            buf.set_filled(before);
            self.held = encoded.into();
        }
        self.hand_over(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlainTargets<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where in a stream of requests the next byte stands.
#[derive(Clone, Copy, Default)]
enum Place {
    /// Before the first space of a request line, or in an empty line before it.
    #[default]
    Method,
    Target,
    /// Behind the target.
    Version,
    Header,
    /// So many bytes of a body are to come.
    Body(u64),
    /// It cannot be told any more.
    Lost,
}

/// Follows a stream of requests.
#[derive(Default)]
struct Requests {
    place: Place,
    /// The beginning of the header line.
    line: Vec<u8>,
    /// What this head says of its body.
    body: Option<u64>,
    is_lost: bool,
}

impl Requests {
    /// Goes on by `bytes`. Gives what stands for them, if that differs.
    fn pass(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut encoded: Option<Vec<u8>> = None;
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let rest = bytes.len() - at;
            let same = match self.place {
                Place::Body(left) => {
                    let taken = rest.min(usize::try_from(left).unwrap_or(rest));
                    self.begin_or_go_on(left - taken as u64);
                    taken
                }
                Place::Lost => rest,
                _ => usize::from(!self.step(*byte)),
            };
            match &mut encoded {
                None if same > 0 => {}
                out => {
                    let out = out.get_or_insert_with(|| bytes[..at].to_vec());
                    match same {
                        0 => out.extend_from_slice(&percent(*byte)),
                        same => out.extend_from_slice(&bytes[at..at + same]),
                    }
                }
            }
            at += same.max(1);
        }
        encoded
    }

    /// Goes on by a byte of a head. Says whether it must be encoded.
    fn step(&mut self, byte: u8) -> bool {
        match (self.place, byte) {
            (Place::Method, b' ') => self.place = Place::Target,
            (Place::Target, b' ') => self.place = Place::Version,
            // The library refuses a request line without a version.
            (Place::Target, b'\n') => self.place = Place::Lost,
            (Place::Target, byte) => return is_refused(byte),
            (Place::Version, b'\n') => self.place = Place::Header,
            (Place::Header, b'\n') => self.end_line(),
            (Place::Header, byte) if self.line.len() < LINE_MAX => self.line.push(byte),
            _ => {}
        }
        false
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii();
        if line.is_empty() {
            let length = self.body.take().unwrap_or(0);
            return self.begin_or_go_on(length);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = str::from_utf8(value.get(1..).unwrap_or_default());
            let length = value.ok().and_then(|value| value.trim().parse().ok());
            self.is_lost |= length.is_none() || self.body.is_some() || line.len() == LINE_MAX;
            self.body = length;
        }
        self.is_lost |= [&b"transfer-encoding"[..], b"upgrade"]
            .iter()
            .any(|lost| name.eq_ignore_ascii_case(lost));
    }

    fn begin_or_go_on(&mut self, body: u64) {
        self.place = match body {
            _ if self.is_lost => Place::Lost,
            0 => Place::Method,
            left => Place::Body(left),
        };
    }
}

fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'^' | b'`' | 0x80..)
}

fn percent(byte: u8) -> [u8; 3] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| HEX[usize::from(value)];
    [b'%', digit(byte >> 4), digit(byte & 15)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// What comes out, however the bytes come in.
    fn passed(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
        let mut requests = Requests::default();
        let (mut out, mut rest, mut piece) = (Vec::new(), bytes, 0);
        while !rest.is_empty() {
            let size = pieces[piece % pieces.len()].clamp(1, rest.len());
            let (now, later) = rest.split_at(size);
            out.extend(requests.pass(now).unwrap_or_else(|| now.to_vec()));
            (rest, piece) = (later, piece + 1);
        }
        out
    }

    fn check(bytes: &[u8], want: &[u8]) {
        for size in [1, 2, 7, 4_096] {
            let got = passed(bytes, &[size]);
            let (got, want) = (String::from_utf8_lossy(&got), String::from_utf8_lossy(want));
            assert_eq!(got, want, "in pieces of {size}");
        }
    }

    #[test]
    fn only_the_target_of_a_request_line_is_encoded() {
        check(
            b"GET /q?query=up{job=\"x\"}>1#c HTTP/1.1\r\nHost: \"a\" <b>\r\n\r\n",
            b"GET /q?query=up{job=%22x%22}%3E1%23c HTTP/1.1\r\nHost: \"a\" <b>\r\n\r\n",
        );
        check(
            "GET /^`/é?a={|}%22 HTTP/1.1\n\n".as_bytes(),
            b"GET /%5E%60/%C3%A9?a={|}%22 HTTP/1.1\n\n",
        );
    }

    #[test]
    fn bodies_stay_and_the_request_behind_them_is_encoded() {
        check(
            b"\r\nPOST /\" HTTP/1.1\r\nCONTENT-length:  14 \r\n\r\nGET /\" H\r\n\r\n..GET /\" HTTP/1.1\r\n\r\n",
            b"\r\nPOST /%22 HTTP/1.1\r\nCONTENT-length:  14 \r\n\r\nGET /\" H\r\n\r\n..GET /%22 HTTP/1.1\r\n\r\n",
        );
    }

    #[test]
    fn after_a_body_without_a_plain_end_nothing_is_encoded() {
        for head in [
            "Transfer-Encoding: chunked",
            "content-length: 2\r\nContent-Length: 2",
            "Content-Length: two",
            "Content-Length: 99999999999999999999",
            "Upgrade: x",
            &format!("Content-Length:{}2", " ".repeat(80)),
        ] {
            let bytes = format!("GET /\" HTTP/1.1\r\n{head}\r\n\r\nGET /\" HTTP/1.1\r\n\r\n");
            let want = bytes.replacen('"', "%22", 1);
            check(bytes.as_bytes(), want.as_bytes());
        }
    }

    #[tokio::test]
    async fn what_has_no_room_is_handed_over_with_the_next_read() {
        let bytes = b"GET /\"\"\"\"\"\"\"\" HTTP/1.1\r\n\r\n";
        let mut stream = PlainTargets::new(&bytes[..]);
        let (mut got, mut room) = (Vec::new(), [0; 7]);
        loop {
            let count = stream.read(&mut room).await.unwrap();
            got.extend_from_slice(&room[..count]);
            if count == 0 {
                break;
            }
        }
        assert_eq!(got, passed(bytes, &[4_096]));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference_and_bodies_are_never_changed(
            requests in prop::collection::vec(
                ("[A-Z]{1,4}", "/[!-~é]{0,20}", prop::collection::vec(any::<u8>(), 0..40)),
                1..5,
            ),
            pieces in prop::collection::vec(1_usize..50, 1..6),
        ) {
            let (mut bytes, mut want) = (Vec::new(), Vec::new());
            for (method, target, body) in &requests {
                let mut encoded = String::new();
                for byte in target.bytes() {
                    match is_refused(byte) {
                        true => encoded += &format!("%{byte:02X}"),
                        false => encoded.push(char::from(byte)),
                    }
                }
                for (out, target) in [(&mut bytes, target), (&mut want, &encoded)] {
                    let head = format!(
                        "{method} {target} HTTP/1.1\r\nA: \"\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    out.extend_from_slice(head.as_bytes());
                    out.extend_from_slice(body);
                }
            }
            prop_assert_eq!(passed(&bytes, &pieces), want);
        }

        #[test]
        fn arbitrary_bytes_only_grow(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(passed(&bytes, &[11]).len() >= bytes.len());
        }
    }
}
