//! Runs the Lambda function if AWS_LAMBDA_RUNTIME_API is set, otherwise the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return tealight::cli::run();
    }
    match tealight::lambda::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tealight: {error}");
            ExitCode::FAILURE
        }
    }
}
