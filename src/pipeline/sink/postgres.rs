//! Writes points to a PostgreSQL table with pgvector.
//!
//! One transaction per body: rows are copied into a temporary staging table with `COPY` and upserted from there, so that existing
//! rows are overwritten and a failed transaction leaves nothing behind.

use super::batching::{StoreClient, WriteResult};
use super::client::upstream_error;
use super::retry::{self, AttemptError};
use super::url::{SinkUrl, invalid_url};
use bytes::Bytes;
use futures_util::SinkExt;
use std::time::Duration;
use tealight_core::{Deadline, Error, Result, Secret};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_TABLE: &str = "documents";
/// Columns that the table must have, in the order of the rows. It may have others.
const COLUMNS: &str = r#"id, document_id, chunk, text, "start", "end", model, metadata, vector"#;
/// Temporary table of a transaction.
const STAGING_TABLE: &str = "pg_temp.tealight_staging";
/// Bytes per message of `COPY`.
const COPY_CHUNK_BYTES: usize = 1 << 16;
/// The server times out earlier than the client by this much, so that its error message arrives.
const SERVER_TIMEOUT_MARGIN: Duration = Duration::from_millis(200);

/// A table, the server and the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PgConfig {
    host: String,
    port: u16,
    user: String,
    password: Option<Secret>,
    database: String,
    table: String,
    mode: SslMode,
    /// File with the trusted root certificates; default: those of Mozilla.
    roots: Option<String>,
}

impl PgConfig {
    /// The key is the password if the URL has none.
    pub fn from_url(url: &SinkUrl, key: Option<Secret>) -> Result<Self> {
        url.reject_unknown(&["table", "sslmode", "sslrootcert", "encoding"], true)?;
        let mode = match url.parameter("sslmode").unwrap_or("prefer") {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" | "verify-ca" | "verify-full" => SslMode::Require,
            _ => return Err(invalid_url("sslmode must be disable, prefer, require, verify-ca or verify-full")),
        };
        Ok(Self {
            host: url.host.clone(),
            port: url.port.unwrap_or(DEFAULT_PORT),
            user: url
                .user
                .clone()
                .ok_or_else(|| invalid_url("the user is missing; expected postgres://USER@HOST/DATABASE"))?,
            password: url.password.clone().or(key),
            database: url.single_segment("a database")?,
            table: url.parameter("table").unwrap_or(DEFAULT_TABLE).into(),
            mode,
            roots: url.parameter("sslrootcert").map(String::from),
        })
    }

    pub fn client(&self) -> Result<PgSink> {
        PgSink::new(self.clone())
    }

    fn client_config(&self, time: Duration) -> Config {
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
        let read_error = |e: &dyn std::fmt::Display| invalid_url(format!("cannot read sslrootcert {path:?}: {e}"));
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| read_error(&e))? {
            roots.add(certificate.map_err(|e| read_error(&e))?).map_err(|e| read_error(&e))?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Some(MakeRustlsConnect::new(config)))
    }
}

pub(super) struct PgSink {
    config: PgConfig,
    /// Runs the connection, on the thread of the caller.
    runtime: Option<Runtime>,
    client: Option<Client>,
    /// `None` if sslmode is disable.
    tls: Option<MakeRustlsConnect>,
    /// The quoted name of the table.
    name: String,
}

impl PgSink {
    fn new(config: PgConfig) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|e| Error::internal(format!("cannot create an event loop for PostgreSQL: {e}")))?;
        let (tls, name) = (config.tls()?, quote_identifier(&config.table));
        Ok(Self { config, runtime: Some(runtime), client: None, tls, name })
    }

    /// Writes rows without retries. Connects first if there is no open connection.
    fn write_once(&mut self, rows: &[u8], time: Duration) -> Result<WriteResult, AttemptError> {
        let Self { config, runtime: Some(runtime), client, tls, name } = self else {
            return Err(Error::internal("the event loop has stopped").into());
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
            Err(_) => DbFailure::Transient(format!("no response within {:.1} s", time.as_secs_f64())),
        };
        match failure {
            DbFailure::Data(message) => {
                self.roll_back(time);
                Ok(WriteResult::Rejected(upstream_error(message)))
            }
            DbFailure::Transient(message) => {
                // The state of a failed connection is unknown, so it is not reused.
                self.client = None;
                Err(AttemptError::retryable(upstream_error(message)))
            }
            DbFailure::Permanent(message) => {
                self.client = None;
                Err(upstream_error(message).into())
            }
        }
    }

    /// Rolls back the transaction, and keeps the connection if that succeeds.
    fn roll_back(&mut self, time: Duration) {
        let (Some(client), Some(runtime)) = (self.client.take(), &self.runtime) else { return };
        let ended = runtime.block_on(async { tokio::time::timeout(time, client.batch_execute("ROLLBACK")).await });
        if matches!(ended, Ok(Ok(()))) {
            self.client = Some(client);
        }
    }
}

/// Shuts the runtime down without waiting for background tasks, such as a DNS lookup.
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

/// Quotes `TABLE` or `SCHEMA.TABLE`.
fn quote_identifier(name: &str) -> String {
    let one = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    name.split('.').map(one).collect::<Vec<_>>().join(".")
}

async fn connect(config: &PgConfig, tls: Option<MakeRustlsConnect>, time: Duration) -> Result<Client, DbFailure> {
    let config = config.client_config(time);
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

/// Copies rows from the staging table; existing rows are overwritten.
fn upsert_sql(table: &str) -> String {
    let columns = COLUMNS.split(", ").skip(1);
    let assignments: Vec<_> = columns.map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO {table} ({COLUMNS}) SELECT DISTINCT ON (id) {COLUMNS} FROM {STAGING_TABLE} \
         ON CONFLICT (id) DO UPDATE SET {}",
        assignments.join(", ")
    )
}

/// Why rows were not written, with the message.
enum DbFailure {
    /// Because of the values of a row.
    Data(String),
    /// A retry can succeed.
    Transient(String),
    /// A retry would also fail.
    Permanent(String),
}

impl From<tokio_postgres::Error> for DbFailure {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return classify(db);
        }
        let text = error_chain(&error);
        if error.is_closed() || is_connection_error(&error) {
            DbFailure::Transient(text)
        } else if text.contains("certificate") {
            DbFailure::Permanent(format!("{text} (set sslrootcert to a file with the trusted root certificates)"))
        } else {
            DbFailure::Permanent(text)
        }
    }
}

/// Classifies an error of the server by its code, and keeps only its message, because details and context quote the row. Codes:
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn classify(error: &DbError) -> DbFailure {
    let (code, message) = (error.code().code(), error.message());
    // Text in quotes after a colon is the value.
    let message = message.split_once(": \"").map_or(message, |(message, _)| message);
    let text = format!("{code} {message}");
    match (code.get(..2).unwrap_or_default(), code) {
        ("22" | "23", _) => DbFailure::Data(text),
        ("08" | "40" | "53" | "57" | "58", _) | (_, "55P03" | "XX000") => DbFailure::Transient(text),
        ("28", _) => DbFailure::Permanent(format!(
            "{text} (set the password in the URL, TEALIGHT_SINK_KEY or TEALIGHT_SINK_SECRET)"
        )),
        (_, "42P01" | "42703") => DbFailure::Permanent(format!("{text} (create the table with the columns {COLUMNS})")),
        (_, "42P10") => DbFailure::Permanent(format!("{text} (make id the primary key of the table)")),
        _ => DbFailure::Permanent(text),
    }
}

/// Whether a connection broke or could not be established.
fn is_connection_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            // Invalid data means an untrusted certificate.
            return io.kind() != std::io::ErrorKind::InvalidData;
        }
        cause = error.source();
    }
    // The message of a connection timeout.
    error.to_string().contains("timeout")
}

/// The messages of an error and its causes, without repetitions.
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
    fn upsert_overwrites_all_columns_except_id() {
        let sql = upsert_sql("\"t\"");
        assert!(sql.ends_with(
            "\"end\" = excluded.\"end\", model = excluded.model, metadata = excluded.metadata, vector = excluded.vector"
        ));
        assert!(!sql.contains(" id = "), "{sql}");
    }
}
