//! Entry point of the `compact` Lambda: settings, clients, use-case, run.

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    siltstone_compact::bootstrap::serve().await
}
