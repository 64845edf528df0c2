//! Mail (RFC 5321), over TLS unless told otherwise (RFC 8314).

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::{Mailbox, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde::Deserialize;
use tokio::time::timeout;

/// A server that has not taken a message by then is as good as none (RFC 5321 §4.5.3.2 allows minutes for single steps).
const PATIENCE: Duration = Duration::from_secs(30);

/// `[notify.smtp]` as it is written.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SmtpLines {
    server: String,
    port: Option<u16>,
    #[serde(default)]
    tls: Wrap,
    user: Option<String>,
    password_file: Option<PathBuf>,
    from: String,
    to: Vec<String>,
}

/// How the way to the server is kept from others.
#[derive(Deserialize, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Wrap {
    /// Not at all: a relay on this machine, or in this network.
    None,
    /// From the second word on.
    #[default]
    Starttls,
    /// From the first word on.
    Tls,
}

/// A server, and who writes to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    server: String,
    port: Option<u16>,
    tls: Wrap,
    user: Option<(String, PathBuf)>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Smtp {
    /// Checks what is written.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(lines: SmtpLines) -> Result<Self, String> {
        let mailbox = |name: &str, text: &str| {
            text.parse::<Mailbox>().map_err(|error| format!("[notify.smtp] {name} = \"{text}\": {error}"))
        };
        if lines.to.is_empty() {
            return Err("[notify.smtp] to: nobody would be told".into());
        }
        let user = match (lines.user, lines.password_file) {
            (Some(user), Some(file)) => Some((user, file)),
            (None, None) => None,
            _ => return Err("[notify.smtp]: user and password_file go together".into()),
        };
        if user.is_some() && lines.tls == Wrap::None {
            return Err(
                "[notify.smtp]: a password is sent over TLS only: tls = \"starttls\" or \"tls\"".into()
            );
        }
        Ok(Self {
            from: mailbox("from", &lines.from)?,
            to: lines.to.iter().map(|to| mailbox("to", to)).collect::<Result<_, _>>()?,
            server: lines.server,
            port: lines.port,
            tls: lines.tls,
            user,
        })
    }

    /// Sends a mail to everybody at once.
    ///
    /// # Errors
    /// What the server said, or that it said nothing.
    pub async fn send(&self, subject: &str, body: &str) -> Result<(), String> {
        let mut message = Message::builder().from(self.from.clone()).subject(subject);
        for to in &self.to {
            message = message.to(to.clone());
        }
        // Whoever answers automatically need not (RFC 3834 §5).
        let message = message.header(header::ContentType::TEXT_PLAIN).raw_header(auto_submitted());
        let message = message.body(body.to_owned()).map_err(|error| error.to_string())?;
        let transport = self.transport().await?;
        let sent = timeout(PATIENCE, transport.send(message)).await;
        let said = |error: lettre::transport::smtp::Error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                text = inner.to_string();
                source = inner.source();
            }
            format!("{}: {text}", self.server)
        };
        sent.map_err(|_| format!("{} did not take it within {PATIENCE:?}", self.server))?
            .map(drop)
            .map_err(said)
    }

    async fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
        let server = self.server.as_str();
        let builder = match self.tls {
            Wrap::None => Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server)),
            Wrap::Starttls => AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(server),
            Wrap::Tls => AsyncSmtpTransport::<Tokio1Executor>::relay(server),
        };
        let mut builder = builder.map_err(|error| error.to_string())?.timeout(Some(PATIENCE));
        if let Some(port) = self.port {
            builder = builder.port(port);
        }
        if let Some((user, file)) = &self.user {
            let password = tokio::fs::read_to_string(file).await;
            let password = password.map_err(|error| format!("{}: {error}", file.display()))?;
            builder = builder.credentials(Credentials::new(user.clone(), password.trim().to_owned()));
        }
        Ok(builder.build())
    }
}

fn auto_submitted() -> header::HeaderValue {
    header::HeaderValue::new(
        header::HeaderName::new_from_ascii_str("Auto-Submitted"),
        "auto-generated".to_owned(),
    )
}
