//! The conversation with a mail server: RFC 5321 with STARTTLS, AUTH PLAIN and LOGIN.
//!
//! A client of our own. lettre 0.11.23 was tried: its smallest form adds 163 KB and
//! five crates, keeps what it had read before a STARTTLS and takes it for an answer
//! given under encryption, and reads a line without an end into memory. Here
//! everything is bounded, bytes behind the answer to STARTTLS end the attempt, and
//! connections go through the check of addresses that all destinations share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::delivery::address::{Policy, connect};
use crate::delivery::tls::{self, Stream};

/// Longer lines are refused.
const LINE_BYTES_MAX: usize = 2_048;
/// The most lines of one answer.
const LINES_MAX: usize = 100;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that takes the mail may take its time to say good-bye, but not for long.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// A mail server and how we speak to it.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// How we name ourselves.
    pub(super) hello: String,
    pub(super) security: Security,
    /// By which name it is known, when not by `host`.
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) login: Option<Login>,
}

/// When the connection becomes encrypted.
#[derive(Clone)]
pub(super) enum Security {
    /// Never.
    None,
    /// Before the mail, by STARTTLS.
    StartTls(Arc<ClientConfig>),
    /// From the beginning.
    Implicit(Arc<ClientConfig>),
}

/// Who we are to the server.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) identity: String,
    pub(super) user: String,
    pub(super) password: String,
}

/// Who sends to whom; checked addresses.
pub(super) struct Envelope {
    pub(super) from: String,
    pub(super) to: Vec<String>,
}

/// Why a mail was not taken.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server could not be reached, or spoke nonsense.
    Broken(String),
    /// The server said no; before the mail, `about_us`.
    Refused {
        code: u16,
        text: String,
        about_us: bool,
    },
    /// It cannot be sent in this way.
    Impossible(String),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Failure {
        Failure::Broken(err.to_string())
    }
}

/// Sends one mail over a new connection; gives the server's last words and who of the
/// recipients it does not take mail for. Without a time limit of its own.
///
/// # Errors
/// When nobody will get it.
pub(super) async fn send(
    server: &Server,
    envelope: &Envelope,
    mail: &[u8],
) -> Result<(String, Vec<String>), Failure> {
    let mut session = Session::open(server).await?;
    session.log_in(server).await?;
    let from = format!("MAIL FROM:<{}>", envelope.from);
    let needs_utf8 = !envelope.from.is_ascii() || !envelope.to.iter().all(|to| to.is_ascii());
    if needs_utf8 && !session.offers("SMTPUTF8") {
        let text = "an address is not ASCII, and the server does not take such";
        return Err(Failure::Impossible(text.to_owned()));
    }
    let more = if needs_utf8 { " SMTPUTF8" } else { "" };
    session.about_us = false;
    session.command(&format!("{from}{more}")).await?;
    let refused = session.recipients(&envelope.to).await?;
    session.expect("DATA", 3).await?;
    session.write(&stuffed(mail)).await?;
    let answer = session.answer().await?.positive(2, false)?;
    let quit = session.command("QUIT");
    drop(tokio::time::timeout(QUIT_TIMEOUT, quit).await);
    Ok((answer.text(), refused))
}

struct Session {
    stream: Box<dyn Stream>,
    /// Read and not yet used.
    read: Vec<u8>,
    offered: Vec<String>,
    encrypted: bool,
    /// Whether a refusal concerns us rather than the mail.
    about_us: bool,
}

impl Session {
    /// Connects, encrypts and says hello.
    async fn open(server: &Server) -> Result<Session, Failure> {
        let tcp = connect(Policy::Operator, &server.host, server.port, CONNECT_TIMEOUT);
        let tcp = tokio::time::timeout(CONNECT_TIMEOUT, tcp).await;
        let tcp = tcp.map_err(|_| Failure::Broken("connecting timed out".to_owned()))??;
        tcp.set_nodelay(true)?;
        let mut session = Session {
            stream: Box::new(tcp),
            read: Vec::new(),
            offered: Vec::new(),
            encrypted: false,
            about_us: true,
        };
        if let Security::Implicit(tls) = &server.security {
            session = session.encrypt(server, tls).await?;
        }
        session.answer().await?.positive(2, true)?;
        session.hello(server).await?;
        if let Security::StartTls(tls) = &server.security {
            if !session.offers("STARTTLS") {
                let text = "require_tls is set, but the server does not offer STARTTLS";
                return Err(Failure::Broken(text.to_owned()));
            }
            session.command("STARTTLS").await?;
            if !session.read.is_empty() {
                let text = "the server spoke on before the encryption";
                return Err(Failure::Broken(text.to_owned()));
            }
            session = session.encrypt(server, tls).await?;
            session.hello(server).await?;
        }
        Ok(session)
    }

    async fn encrypt(self, server: &Server, tls: &Arc<ClientConfig>) -> Result<Session, Failure> {
        let stream =
            tls::encrypt(self.stream, &server.host, server.server_name.clone(), tls).await?;
        Ok(Session {
            stream,
            encrypted: true,
            offered: Vec::new(),
            ..self
        })
    }

    async fn hello(&mut self, server: &Server) -> Result<(), Failure> {
        let answer = self.ask(&format!("EHLO {}", server.hello)).await?;
        if answer.code / 100 != 2 {
            self.command(&format!("HELO {}", server.hello)).await?;
            return Ok(());
        }
        let offered = answer.lines.iter().skip(1);
        self.offered = offered.map(|line| line.to_ascii_uppercase()).collect();
        Ok(())
    }

    fn offers(&self, extension: &str) -> bool {
        self.words(extension).is_some()
    }

    /// What stands behind an extension's name.
    fn words(&self, extension: &str) -> Option<Vec<&str>> {
        let mut offered = self.offered.iter().map(|line| line.split(' '));
        offered.find_map(|mut words| (words.next() == Some(extension)).then(|| words.collect()))
    }

    async fn log_in(&mut self, server: &Server) -> Result<(), Failure> {
        let Some(login) = &server.login else {
            return Ok(());
        };
        // As Alertmanager: a server that asks for nothing gets nothing.
        let Some(offered) = self.words("AUTH") else {
            return Ok(());
        };
        // The first that both know, as the server lists them.
        let mut known = offered
            .iter()
            .filter(|way| ["PLAIN", "LOGIN"].contains(way));
        let Some(way) = known.next() else {
            let text = format!("unknown auth mechanism: {}", offered.join(" "));
            return Err(Failure::Broken(text));
        };
        let is_plain = *way == "PLAIN";
        if !self.encrypted && !is_local(&server.host) {
            let text = "the password is not sent unencrypted";
            return Err(Failure::Broken(text.to_owned()));
        }
        if is_plain {
            let words = format!("{}\0{}\0{}", login.identity, login.user, login.password);
            self.command(&format!("AUTH PLAIN {}", BASE64.encode(words)))
                .await?;
        } else {
            self.expect("AUTH LOGIN", 3).await?;
            self.expect(&BASE64.encode(&login.user), 3).await?;
            self.command(&BASE64.encode(&login.password)).await?;
        }
        Ok(())
    }

    /// Names the recipients; gives those that the server does not take mail for. With
    /// none left, or one that has to wait, nobody gets it now.
    async fn recipients(&mut self, all: &[String]) -> Result<Vec<String>, Failure> {
        let mut refused = Vec::new();
        let mut last = None;
        for to in all {
            match self.command(&format!("RCPT TO:<{to}>")).await {
                Ok(_) => {}
                Err(Failure::Refused {
                    code,
                    text,
                    about_us,
                }) if code >= 500 => {
                    refused.push(to.clone());
                    last = Some(Failure::Refused {
                        code,
                        text,
                        about_us,
                    });
                }
                Err(err) => return Err(err),
            }
        }
        match last {
            Some(err) if refused.len() == all.len() => Err(err),
            _ => Ok(refused),
        }
    }

    /// Sends a command that has to succeed.
    async fn command(&mut self, command: &str) -> Result<Answer, Failure> {
        self.expect(command, 2).await
    }

    /// Sends a command whose answer has to be of this class.
    async fn expect(&mut self, command: &str, class: u16) -> Result<Answer, Failure> {
        let about_us = self.about_us;
        self.ask(command).await?.positive(class, about_us)
    }

    async fn ask(&mut self, command: &str) -> Result<Answer, Failure> {
        self.write(format!("{command}\r\n").as_bytes()).await?;
        self.answer().await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn answer(&mut self) -> Result<Answer, Failure> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            let sign = line.as_bytes().get(3).copied().unwrap_or(b' ');
            let (Some(code @ 200..=599), b' ' | b'-') = (code, sign) else {
                return Err(Failure::Broken(format!("not an answer: {line:?}")));
            };
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if sign == b' ' {
                return Ok(Answer { code, lines });
            }
            if lines.len() == LINES_MAX {
                return Err(Failure::Broken("an answer without an end".to_owned()));
            }
        }
    }

    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(Failure::Broken("a line without an end".to_owned()));
            }
            let mut buffer = [0; 1_024];
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                let text = "the server closed the connection";
                return Err(Failure::Broken(text.to_owned()));
            }
            self.read.extend_from_slice(&buffer[..count]);
        }
    }
}

struct Answer {
    code: u16,
    lines: Vec<String>,
}

impl Answer {
    fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join(" "))
    }

    fn positive(self, class: u16, about_us: bool) -> Result<Answer, Failure> {
        if self.code / 100 == class {
            return Ok(self);
        }
        Err(Failure::Refused {
            code: self.code,
            text: self.text(),
            about_us,
        })
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// A mail with its end; a line that begins with a dot gets another one.
fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + 16);
    let mut before = b'\n';
    for byte in mail {
        if before == b'\n' && *byte == b'.' {
            out.push(b'.');
        }
        out.push(*byte);
        before = *byte;
    }
    if before != b'\n' {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_mail_ends_it() {
        let check = |mail: &str, want: &str| {
            assert_eq!(String::from_utf8(stuffed(mail.as_bytes())).unwrap(), want);
        };
        check("a\r\n.\r\nb\r\n", "a\r\n..\r\nb\r\n.\r\n");
        check(".x\r\n..", "..x\r\n...\r\n.\r\n");
        check("", ".\r\n");
    }

    #[test]
    fn a_password_goes_unencrypted_to_this_host_only() {
        for (host, want) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("mail.example.com", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_local(host), want, "{host}");
        }
    }
}
