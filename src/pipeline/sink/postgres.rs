//! Points into a table of PostgreSQL with pgvector.
//!
//! Rows are copied into a table of the transaction's own and taken over from there, so that one that is there is overwritten; a
//! transaction that fails leaves nothing.

use super::batching::{StoreClient, WriteResult};
use super::client::upstream_error;
use super::retry::{self, AttemptError};
use super::url::{SinkUrl, invalid_url};
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
const STAGING_TABLE: &str = "pg_temp.tealight_given";
/// Rows of a body are handed on in pieces of so many bytes.
const COPY_CHUNK_BYTES: usize = 1 << 16;
/// How much sooner the server gives up than we do, so that it is the one to say so.
const SERVER_TIMEOUT_MARGIN: Duration = Duration::from_millis(200);

/// Where a table is, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PgConfig {
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

impl PgConfig {
    /// Of a URL, and of a key that is its password where it has none.
    pub fn from_url(address: &SinkUrl, key: Option<Secret>) -> Result<Self> {
        address.reject_unknown(&["table", "sslmode", "sslrootcert", "encoding"], true)?;
        let mode = match address.parameter("sslmode").unwrap_or("prefer") {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" | "verify-ca" | "verify-full" => SslMode::Require,
            _ => return Err(invalid_url("sslmode must be disable, prefer, require or verify-full")),
        };
        Ok(Self {
            host: address.host.clone(),
            port: address.port.unwrap_or(DEFAULT_PORT),
            user: address
                .user
                .clone()
                .ok_or_else(|| invalid_url("postgres:// needs a user: postgres://USER@HOST/DATABASE"))?,
            password: address.password.clone().or(key),
            database: address.single_segment("a database")?,
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
        let unread = |e: &dyn std::fmt::Display| invalid_url(format!("sslrootcert {path:?} cannot be read: {e}"));
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unread(&e))? {
            roots.add(certificate.map_err(|e| unread(&e))?).map_err(|e| unread(&e))?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Some(MakeRustlsConnect::new(config)))
    }
}

/// A table.
pub(super) struct PgSink {
    config: PgConfig,
    /// A connection lives on the thread of whoever writes.
    runtime: Option<Runtime>,
    client: Option<Client>,
    /// Whatever is encrypted is encrypted for a server that is known.
    tls: Option<MakeRustlsConnect>,
    /// The table's name as statements have it.
    name: String,
}

impl PgSink {
    pub fn new(config: PgConfig) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::internal(format!("no event loop for PostgreSQL: {e}")))?;
        let (tls, name) = (config.tls()?, quote_identifier(&config.table));
        Ok(Self { config, runtime: Some(runtime), client: None, tls, name })
    }

    /// Writes rows once, or says what it takes to write them.
    fn write_once(&mut self, rows: &[u8], time: Duration) -> Result<WriteResult, AttemptError> {
        let Self { config, runtime: Some(runtime), client, tls, name } = self else {
            return Err(Error::internal("the event loop is gone").into());
        };
        let work = async {
            let connected = match client.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => connect(config, tls.clone(), time).await?,
            };
            let outcome = write(&connected, name, rows, time).await;
            *client = Some(connected);
            outcome.map_err(DbFailure::from)
        };
        let outcome = runtime.block_on(async { tokio::time::timeout(time, work).await });
        let failure = match outcome {
            Ok(Ok(())) => return Ok(WriteResult::Accepted(vec![])),
            Ok(Err(failure)) => failure,
            Err(_) => DbFailure::Transient(format!("no answer within {:.1} s", time.as_secs_f64())),
        };
        match failure {
            DbFailure::Data(message) => {
                self.roll_back(time);
                Ok(WriteResult::KernelError(upstream_error(message)))
            }
            DbFailure::Transient(message) => {
                // Anonymous knows what state a connection is in that failed.
                self.client = None;
                Err(AttemptError::retryable(upstream_error(message)))
            }
            DbFailure::Permanent(message) => {
                self.client = None;
                Err(upstream_error(message).into())
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
impl Drop for PgSink {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl StoreClient for PgSink {
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<WriteResult> {
        let PgConfig { host, port, table, .. } = &self.config;
        let name = format!("table {table} of PostgreSQL at {host}:{port}");
        retry::run(deadline, |time| self.write_once(body, time)).map_err(|e| e.with_context(name))
    }
}

/// An identifier, or two with a point between them.
fn quote_identifier(name: &str) -> String {
    let one = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    name.split('.').map(one).collect::<Vec<_>>().join(".")
}

async fn connect(config: &PgConfig, tls: Option<MakeRustlsConnect>, time: Duration) -> Result<Client, DbFailure> {
    let config = config.config(time);
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
    let limit = time.saturating_sub(SERVER_TIMEOUT_MARGIN).as_millis().max(1);
    client
        .batch_execute(&format!(
            "BEGIN; SET LOCAL statement_timeout = {limit}; \
             CREATE TEMP TABLE {STAGING_TABLE} ON COMMIT DROP AS SELECT {COLUMNS} FROM {table} WITH NO DATA"
        ))
        .await?;
    let mut sink = Box::pin(client.copy_in::<_, Bytes>(&format!("COPY {STAGING_TABLE} ({COLUMNS}) FROM STDIN")).await?);
    for piece in rows.chunks(COPY_CHUNK_BYTES) {
        sink.send(Bytes::copy_from_slice(piece)).await?;
    }
    sink.close().await?;
    client.batch_execute(&format!("{}; COMMIT", upsert_sql(table))).await
}

/// Rows that are there are overwritten.
fn upsert_sql(table: &str) -> String {
    let columns = COLUMNS.split(", ").skip(1);
    let assignments: Vec<_> = columns.map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO {table} ({COLUMNS}) SELECT DISTINCT ON (id) {COLUMNS} FROM {STAGING_TABLE} \
         ON CONFLICT (id) DO UPDATE SET {}",
        assignments.join(", ")
    )
}

/// Why rows were not written.
enum DbFailure {
    /// For what is in one of them.
    Data(String),
    /// For something that may pass.
    Transient(String),
    /// For something that does not.
    Permanent(String),
}

impl From<tokio_postgres::Error> for DbFailure {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return classify(db);
        }
        let text = error_chain(&error);
        match error.is_closed() || is_connection_error(&error) {
            true => DbFailure::Transient(text),
            false if text.contains("certificate") => {
                DbFailure::Permanent(format!("{text} (sslrootcert names a file of certificates that are trusted)"))
            }
            false => DbFailure::Permanent(text),
        }
    }
}

/// What the server says: the message alone, since details and context have the row in them.
/// Classes of codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn classify(error: &DbError) -> DbFailure {
    let (code, message) = (error.code().code(), error.message());
    // What stands in quotes behind a colon is the value.
    let message = message.split_once(": \"").map_or(message, |(message, _)| message);
    let text = format!("{code} {message}");
    match (code.get(..2).unwrap_or_default(), code) {
        ("22" | "23", _) => DbFailure::Data(text),
        ("08" | "40" | "53" | "57" | "58", _) | (_, "55P03" | "XX000") => DbFailure::Transient(text),
        ("28", _) => DbFailure::Permanent(format!("{text} (the password is in the URL, TEALIGHT_SINK_KEY or _SECRET)")),
        (_, "42P01" | "42703") => {
            DbFailure::Permanent(format!("{text} (the table must be there, with the columns {COLUMNS})"))
        }
        (_, "42P10") => DbFailure::Permanent(format!("{text} (id must be the table's primary key)")),
        _ => DbFailure::Permanent(text),
    }
}

/// Whether a connection broke, or could not be made.
fn is_connection_error(error: &(dyn std::error::Error + 'static)) -> bool {
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

fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text += &format!(": {message}");
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
        assert_eq!(quote_identifier("documents"), "\"documents\"");
        assert_eq!(quote_identifier("my.documents"), "\"my\".\"documents\"");
        assert_eq!(quote_identifier("d\"; drop table x"), "\"d\"\"; drop table x\"");
    }

    #[test]
    fn a_row_that_is_there_is_overwritten_but_for_its_id() {
        let sql = upsert_sql("\"t\"");
        assert!(sql.ends_with(
            "\"end\" = excluded.\"end\", model = excluded.model, metadata = excluded.metadata, vector = excluded.vector"
        ));
        assert!(!sql.contains(" id = "), "{sql}");
    }
}
