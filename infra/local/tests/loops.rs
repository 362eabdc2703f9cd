//! Recursive-loop detection end to end: a function that puts its own trigger, in this process and as a real `bootstrap`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_sdk_s3::{Client, primitives::ByteStream};
use bytes::Bytes;
use siltstone_local::{
    Stack, StackConfig,
    glue::{
        Function, InProcess, ProcessConfig, ProcessFunction,
        function::Handler,
        notify::{self, CHAIN_MAX, Delivery, NotifyCounts, Rule},
    },
    host,
};

const BUCKET: &str = "lake";
/// A function that is allowed to loop ends by itself, as `compact` does by its own count.
const ENDS_AFTER: u32 = 20;

async fn put_trigger(s3: &Client) {
    let put = s3.put_object().bucket(BUCKET).key("tasks/next").body(ByteStream::from_static(b"{}"));
    put.send().await.unwrap();
}

/// Feeds the events of a stack to `function`, puts the first trigger, and waits for rest; how many invocations there were, how many loops.
async fn run(stack: &Stack, s3: &Client, function: Arc<dyn Function>, allows_loops: bool) -> (u64, u64) {
    let counts: Arc<NotifyCounts> = Arc::default();
    let rule = Rule { bucket: BUCKET.to_owned(), prefix: "tasks/".to_owned(), function, allows_loops };
    let events = stack.take_events().unwrap();
    let running = tokio::spawn(notify::run(events, move || vec![rule.clone()], Delivery::default(), counts.clone()));
    put_trigger(s3).await;
    let seen = || (counts.delivered.load(Ordering::Relaxed), counts.loops.load(Ordering::Relaxed));
    let mut before = None;
    while before != Some(seen()) && seen().0 < 3 * u64::from(CHAIN_MAX) {
        before = Some(seen());
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    running.abort();
    seen()
}

async fn stack() -> (Stack, Client) {
    let stack = Stack::start(StackConfig::default()).await.unwrap();
    stack.s3().create_bucket(BUCKET).unwrap();
    let s3 = host::clients(&stack.endpoints()).await.s3;
    (stack, s3)
}

/// Puts its own trigger, `ENDS_AFTER` times.
fn in_process(s3: &Client) -> Arc<dyn Function> {
    let (s3, calls) = (s3.clone(), Arc::new(AtomicU32::new(0)));
    let handler: Handler = Arc::new(move |_, _| {
        let (s3, calls) = (s3.clone(), calls.clone());
        Box::pin(async move {
            if calls.fetch_add(1, Ordering::Relaxed) + 1 < ENDS_AFTER {
                put_trigger(&s3).await;
            }
            Ok(Bytes::new())
        })
    });
    Arc::new(InProcess::new("loops", handler, Duration::from_secs(10), 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_puts_its_own_trigger_is_stopped() {
    let (stack, s3) = stack().await;
    assert_eq!(run(&stack, &s3, in_process(&s3), false).await, (u64::from(CHAIN_MAX), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_allowed_to_loop_ends_by_itself() {
    let (stack, s3) = stack().await;
    assert_eq!(run(&stack, &s3, in_process(&s3), true).await, (u64::from(ENDS_AFTER), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_puts_its_own_trigger_is_stopped() {
    let (stack, s3) = stack().await;
    let variables = stack.endpoints();
    let variables = variables.variables().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = ProcessConfig {
        name: "loops".to_owned(),
        program: std::env::current_exe().unwrap(),
        arguments: ["--exact", "bootstrap", "--ignored"].map(str::to_owned).into(),
        environment: BTreeMap::from(variables),
        memory_mb: 512,
        timeout: Duration::from_secs(30),
        concurrency: 1,
        cpu_share: false,
    };
    let function = Arc::new(ProcessFunction::new(config, Arc::new(|_| {})));
    assert_eq!(run(&stack, &s3, function, false).await, (u64::from(CHAIN_MAX), 1));
}

#[tokio::test]
#[ignore = "the program of the function above, not a test"]
async fn bootstrap() {
    let s3 = &siltstone_aws::Clients::from_env(siltstone_aws::Timeouts::default()).await.s3;
    lambda_runtime::run(lambda_runtime::service_fn(
        move |_: lambda_runtime::LambdaEvent<serde_json::Value>| async move {
            put_trigger(s3).await;
            Ok::<(), lambda_runtime::Error>(())
        },
    ))
    .await
    .unwrap();
}
