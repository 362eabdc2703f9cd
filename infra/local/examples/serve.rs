//! Starts a stack and prints what to export, then waits for Ctrl-C: `cargo run -p siltstone-local --example serve [DIR [PORT]]`.

use std::{error::Error, io::Write};

use siltstone_local::{Stack, StackConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().filter(|dir| !dir.is_empty()).map(Into::into);
    let port = args.next().map(|port| port.parse()).transpose()?.unwrap_or(0);
    let stack = Stack::start(StackConfig { dir, port }).await?;
    print!("{}", stack.exports());
    println!("# ready");
    std::io::stdout().flush()?;
    tokio::signal::ctrl_c().await?;
    stack.shutdown().await;
    Ok(())
}
