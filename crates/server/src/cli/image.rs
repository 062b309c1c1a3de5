#[derive(Debug, clap::Args)] pub struct ImageArgs{} pub async fn run(_a: ImageArgs, _c: std::path::PathBuf) -> std::process::ExitCode { std::process::ExitCode::SUCCESS }
