//! The part of Lambda's own API that callers use: event source mappings to read, functions to invoke.
//!
//! Neighbours: `maintain` reads mappings through `aws-sdk-lambda`; `aws lambda invoke` works. REST-JSON, version 2015-03-31.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Function, MappingConfig, lineage};
use crate::{ACCOUNT, Kinesis, REGION, s3::TRACE_HEADER};

/// What runs now: asked at each call, so functions and mappings may come and go.
pub trait Registry: Send + Sync {
    /// A function by name.
    fn function(&self, name: &str) -> Option<Arc<dyn Function>>;
    /// Mappings: function name and settings.
    fn mappings(&self) -> Vec<(String, MappingConfig)>;
}

/// Serves until the listener is dropped with its task.
pub async fn serve(listener: TcpListener, registry: Arc<dyn Registry>) {
    let router = Router::new()
        .route("/2015-03-31/event-source-mappings", get(list))
        .route("/2015-03-31/event-source-mappings/", get(list))
        .route("/2015-03-31/functions/{name}/invocations", post(invoke))
        .layer(axum::extract::DefaultBodyLimit::max(8 << 20))
        .with_state(registry);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the Lambda API ended");
    }
}

async fn list(State(registry): State<Arc<dyn Registry>>, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let name = |text: &str| text.rsplit(':').next().unwrap_or(text).to_owned();
    let wanted = query.get("FunctionName").map(|f| name(f));
    let mappings: Vec<Value> = registry
        .mappings()
        .into_iter()
        .filter(|(function, _)| wanted.as_ref().is_none_or(|w| w == function))
        .map(|(function, config)| described(&function, &config))
        .collect();
    Json(json!({"EventSourceMappings": mappings}))
}

fn described(function: &str, config: &MappingConfig) -> Value {
    json!({
        "UUID": format!("local-{function}-{}", config.stream), "StartingPosition": "TRIM_HORIZON", "BatchSize": config.batch_size,
        "MaximumBatchingWindowInSeconds": config.window.as_secs(), "ParallelizationFactor": 1,
        "EventSourceArn": Kinesis::arn(&config.stream), "FunctionArn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"),
        "State": "Enabled", "BisectBatchOnFunctionError": config.bisect, "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1, "TumblingWindowInSeconds": 0, "FunctionResponseTypes": ["ReportBatchItemFailures"]})
}

async fn invoke(
    State(registry): State<Arc<dyn Registry>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    payload: Bytes,
) -> Response {
    let name = name.rsplit(':').next().unwrap_or(&name).to_owned();
    let Some(function) = registry.function(&name) else {
        let body = json!({"Type": "User", "Message": format!("Function not found: {name}")});
        return (StatusCode::NOT_FOUND, [("x-amzn-errortype", "ResourceNotFoundException")], Json(body))
            .into_response();
    };
    let depth = lineage::after(headers.get(TRACE_HEADER).and_then(|id| id.to_str().ok()));
    let invocation = lineage::at_depth(depth, async move { (function.invoke(payload).await, function) });
    if headers.get("x-amz-invocation-type").is_some_and(|t| t == "Event") {
        tokio::spawn(async move {
            if let (Err(error), function) = invocation.await {
                tracing::warn!(function = function.name(), %error, "an asynchronous invocation failed");
            }
        });
        return StatusCode::ACCEPTED.into_response();
    }
    match invocation.await.0 {
        Ok(answer) => (StatusCode::OK, answer).into_response(),
        Err(error) => {
            let body = json!({"errorMessage": error.to_string(), "errorType": "Error"});
            (StatusCode::OK, [("x-amz-function-error", "Unhandled")], Json(body)).into_response()
        }
    }
}
