//! Points into a table of PostgreSQL with pgvector.
//!
//! Rows are copied into a table of the transaction's own and taken over from there, so that one that is there is overwritten; a
//! transaction that fails leaves nothing.

use super::batching::{Answer, Index};
use super::client::refused;
use super::retry::{self, Miss};
use super::url::{Address, wrong};
use bytes::Bytes;
use futures_util::SinkExt;
use std::time::Duration;
use tealight_core::Deadline;
use tealight_core::Secret;
use tealight_core::{Error, Result};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_TABLE: &str = "documents";
/// Columns that a table must have, in the order in which rows have them; it may have others.
const COLUMNS: &str = r#"id, document_id, chunk, text, "start", "end", model, metadata, vector"#;
/// The transaction's own table.
const GIVEN: &str = "pg_temp.tealight_given";
/// Rows of a body are handed on in pieces of so many bytes.
const PIECE: usize = 1 << 16;
/// How much sooner the server gives up than we do, so that it is the one to say so.
const MARGIN: Duration = Duration::from_millis(200);

/// Where a table is, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    host: String,
    port: u16,
    user: String,
    password: Option<Secret>,
    database: String,
    table: String,
    mode: SslMode,
    /// A file of certificates that are trusted instead of the web's.
    roots: Option<String>,
}

impl Settings {
    /// Of a URL, and of a key that is its password where it has none.
    pub fn of(address: &Address, key: Option<Secret>) -> Result<Self> {
        address.only(&["table", "sslmode", "sslrootcert", "encoding"], true)?;
        let mode = match address.parameter("sslmode").unwrap_or("prefer") {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" | "verify-ca" | "verify-full" => SslMode::Require,
            _ => return Err(wrong("sslmode must be disable, prefer, require or verify-full")),
        };
        Ok(Self {
            host: address.host.clone(),
            port: address.port.unwrap_or(DEFAULT_PORT),
            user: address
                .user
                .clone()
                .ok_or_else(|| wrong("postgres:// needs a user: postgres://USER@HOST/DATABASE"))?,
            password: address.password.clone().or(key),
            database: address.name("a database")?,
            table: address.parameter("table").unwrap_or(DEFAULT_TABLE).into(),
            mode,
            roots: address.parameter("sslrootcert").map(String::from),
        })
    }

    fn config(&self, time: Duration) -> Config {
        let mut config = Config::new();
        config.host(&self.host).port(self.port).user(&self.user).dbname(&self.database).ssl_mode(self.mode);
        config.application_name("tealight").connect_timeout(time);
        if let Some(Secret(password)) = &self.password {
            config.password(password);
        }
        config
    }

    fn tls(&self) -> Result<Option<MakeRustlsConnect>> {
        if self.mode == SslMode::Disable {
            return Ok(None);
        }
        let Some(path) = &self.roots else { return Ok(Some(MakeRustlsConnect::with_webpki_roots())) };
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let unread = |e: &dyn std::fmt::Display| wrong(format!("sslrootcert {path:?} cannot be read: {e}"));
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unread(&e))? {
            roots.add(certificate.map_err(|e| unread(&e))?).map_err(|e| unread(&e))?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Some(MakeRustlsConnect::new(config)))
    }
}

/// A table.
pub(super) struct Table {
    settings: Settings,
    /// A connection lives on the thread of whoever writes.
    runtime: Option<Runtime>,
    client: Option<Client>,
    /// Whatever is encrypted is encrypted for a server that is known.
    tls: Option<MakeRustlsConnect>,
    /// The table's name as statements have it.
    name: String,
}

impl Table {
    pub fn new(settings: Settings) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::internal(format!("no event loop for PostgreSQL: {e}")))?;
        let (tls, name) = (settings.tls()?, quoted(&settings.table));
        Ok(Self { settings, runtime: Some(runtime), client: None, tls, name })
    }

    /// Writes rows once, or says what it takes to write them.
    fn once(&mut self, rows: &[u8], time: Duration) -> Result<Answer, Miss> {
        let Self { settings, runtime: Some(runtime), client, tls, name } = self else {
            return Err(Error::internal("the event loop is gone").into());
        };
        let work = async {
            let connected = match client.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => connect(settings, tls.clone(), time).await?,
            };
            let outcome = write(&connected, name, rows, time).await;
            *client = Some(connected);
            outcome.map_err(Trouble::from)
        };
        let outcome = runtime.block_on(async { tokio::time::timeout(time, work).await });
        let trouble = match outcome {
            Ok(Ok(())) => return Ok(Answer::Kept(vec![])),
            Ok(Err(trouble)) => trouble,
            Err(_) => Trouble::Passing(format!("no answer within {:.1} s", time.as_secs_f64())),
        };
        match trouble {
            Trouble::Data(said) => {
                self.roll_back(time);
                Ok(Answer::KernelError(refused(said)))
            }
            Trouble::Passing(said) => {
                // Nobody knows what state a connection is in that failed.
                self.client = None;
                Err(Miss::passing(refused(said)))
            }
            Trouble::Lasting(said) => {
                self.client = None;
                Err(refused(said).into())
            }
        }
    }

    /// The connection stays where it can.
    fn roll_back(&mut self, time: Duration) {
        let (Some(client), Some(runtime)) = (self.client.take(), &self.runtime) else { return };
        let ended = runtime.block_on(async { tokio::time::timeout(time, client.batch_execute("ROLLBACK")).await });
        if matches!(ended, Ok(Ok(()))) {
            self.client = Some(client);
        }
    }
}

/// Waits for nothing, not for a name that is still looked up either.
impl Drop for Table {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Index for Table {
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<Answer> {
        let Settings { host, port, table, .. } = &self.settings;
        let name = format!("table {table} of PostgreSQL at {host}:{port}");
        retry::run(deadline, |time| self.once(body, time)).map_err(|e| e.with_context(name))
    }
}

/// An identifier, or two with a point between them.
fn quoted(name: &str) -> String {
    let one = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    name.split('.').map(one).collect::<Vec<_>>().join(".")
}

async fn connect(settings: &Settings, tls: Option<MakeRustlsConnect>, time: Duration) -> Result<Client, Trouble> {
    let config = settings.config(time);
    let Some(tls) = tls else {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        return Ok(client);
    };
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn write(client: &Client, table: &str, rows: &[u8], time: Duration) -> Result<(), tokio_postgres::Error> {
    let limit = time.saturating_sub(MARGIN).as_millis().max(1);
    client
        .batch_execute(&format!(
            "BEGIN; SET LOCAL statement_timeout = {limit}; \
             CREATE TEMP TABLE {GIVEN} ON COMMIT DROP AS SELECT {COLUMNS} FROM {table} WITH NO DATA"
        ))
        .await?;
    let mut sink = Box::pin(client.copy_in::<_, Bytes>(&format!("COPY {GIVEN} ({COLUMNS}) FROM STDIN")).await?);
    for piece in rows.chunks(PIECE) {
        sink.send(Bytes::copy_from_slice(piece)).await?;
    }
    sink.close().await?;
    client.batch_execute(&format!("{}; COMMIT", take_over(table))).await
}

/// Rows that are there are overwritten.
fn take_over(table: &str) -> String {
    let columns = COLUMNS.split(", ").skip(1);
    let news: Vec<_> = columns.map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO {table} ({COLUMNS}) SELECT DISTINCT ON (id) {COLUMNS} FROM {GIVEN} \
         ON CONFLICT (id) DO UPDATE SET {}",
        news.join(", ")
    )
}

/// Why rows were not written.
enum Trouble {
    /// For what is in one of them.
    Data(String),
    /// For something that may pass.
    Passing(String),
    /// For something that does not.
    Lasting(String),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return said(db);
        }
        let text = causes(&error);
        match error.is_closed() || is_cut(&error) {
            true => Trouble::Passing(text),
            false if text.contains("certificate") => {
                Trouble::Lasting(format!("{text} (sslrootcert names a file of certificates that are trusted)"))
            }
            false => Trouble::Lasting(text),
        }
    }
}

/// What the server says: the message alone, since details and context have the row in them.
/// Classes of codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn said(error: &DbError) -> Trouble {
    let (code, message) = (error.code().code(), error.message());
    // What stands in quotes behind a colon is the value.
    let message = message.split_once(": \"").map_or(message, |(message, _)| message);
    let text = format!("{code} {message}");
    match (code.get(..2).unwrap_or_default(), code) {
        ("22" | "23", _) => Trouble::Data(text),
        ("08" | "40" | "53" | "57" | "58", _) | (_, "55P03" | "XX000") => Trouble::Passing(text),
        ("28", _) => Trouble::Lasting(format!("{text} (the password is in the URL, TEALIGHT_SINK_KEY or _SECRET)")),
        (_, "42P01" | "42703") => {
            Trouble::Lasting(format!("{text} (the table must be there, with the columns {COLUMNS})"))
        }
        (_, "42P10") => Trouble::Lasting(format!("{text} (id must be the table's primary key)")),
        _ => Trouble::Lasting(text),
    }
}

/// Whether a connection broke, or could not be made.
fn is_cut(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            // Of a certificate that is not trusted.
            return io.kind() != std::io::ErrorKind::InvalidData;
        }
        cause = error.source();
    }
    // Of a connection that was not made in time.
    error.to_string().contains("timeout")
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text += &format!(": {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quoted("documents"), "\"documents\"");
        assert_eq!(quoted("my.documents"), "\"my\".\"documents\"");
        assert_eq!(quoted("d\"; drop table x"), "\"d\"\"; drop table x\"");
    }

    #[test]
    fn a_row_that_is_there_is_overwritten_but_for_its_id() {
        let sql = take_over("\"t\"");
        assert!(sql.ends_with(
            "\"end\" = excluded.\"end\", model = excluded.model, metadata = excluded.metadata, vector = excluded.vector"
        ));
        assert!(!sql.contains(" id = "), "{sql}");
    }
}
