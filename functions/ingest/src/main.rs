//! Entry point of the `ingest` Lambda: settings, clients, use-case, run.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    siltstone_ingest::bootstrap::serve().await
}
