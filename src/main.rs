//! Runs the Lambda function if AWS_LAMBDA_RUNTIME_API is set, otherwise the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return tealight::cli::run();
    }
    match run_function() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tealight: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "lambda")]
use tealight::lambda::run as run_function;

#[cfg(not(feature = "lambda"))]
fn run_function() -> tealight::Result<()> {
    let what = "AWS Lambda, whose variable AWS_LAMBDA_RUNTIME_API is set";
    Err(tealight::Error::feature_disabled(tealight::ErrorKind::UnsupportedEvent, what, "lambda"))
}
