//! `tealight serve`: the local HTTP server.

use super::args::EmbeddingModelArgs;
use crate::api::Api;
use crate::server;
use clap::Args;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tealight_core::Result;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 chooses a free one
    #[arg(long, short, default_value_t = 9000)]
    port: u16,
    #[command(flatten)]
    model: EmbeddingModelArgs,
}

pub(super) fn run(args: &ServeArgs) -> Result<()> {
    crate::telemetry::log::init(std::io::stderr);
    let engine = Arc::new(args.model.engine()?);
    let api = Arc::new(Api::new(engine));
    server::run(api, SocketAddr::new(args.host, args.port), |address| {
        let _ = writeln!(std::io::stderr(), "tealight: listening on http://{address}");
    })
}
