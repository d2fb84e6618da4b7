//! Runs the Lambda function if AWS_LAMBDA_RUNTIME_API is set, otherwise the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return run_command_line();
    }
    exit_code(run_function())
}

fn exit_code<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("tealight: {error}");
    ExitCode::FAILURE
}

#[cfg(feature = "cli")]
use tealight::cli::run as run_command_line;

#[cfg(not(feature = "cli"))]
fn run_command_line() -> ExitCode {
    let what = "the command line (AWS_LAMBDA_RUNTIME_API is not set)";
    exit_code(Err(tealight::Error::feature_disabled(tealight::ErrorKind::UnsupportedEvent, what, "cli")))
}

#[cfg(feature = "lambda")]
use tealight::lambda::run as run_function;

#[cfg(not(feature = "lambda"))]
fn run_function() -> tealight::Result<()> {
    let what = "AWS Lambda, whose variable AWS_LAMBDA_RUNTIME_API is set";
    Err(tealight::Error::feature_disabled(tealight::ErrorKind::UnsupportedEvent, what, "lambda"))
}
