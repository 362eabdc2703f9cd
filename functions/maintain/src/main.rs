//! Entry point of the `maintain` Lambda: settings, clients, use-case, run.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    siltstone_maintain::bootstrap::serve().await
}
