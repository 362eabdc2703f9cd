//! Kinesis' wire: JSON 1.1 over POST. Neighbours: `api` (what is answered), `mod` (the lock, and what survives).
//! Invariant: 1. every answer, errors included, is JSON with the service's own names.

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

use super::{
    Kinesis,
    state::{Refusal, refuse},
};

const PREFIX: &str = "Kinesis_20131202.";
/// 10 MiB of records are 14 MiB in base64.
const REQUEST_BYTES_MAX: usize = 16 << 20;

pub(super) async fn serve(kinesis: Kinesis, listener: TcpListener, stop: oneshot::Receiver<()>) {
    let app =
        Router::new().route("/", post(answer)).layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX)).with_state(kinesis);
    let stopped = async move {
        stop.await.ok();
    };
    let listener = listener.tap_io(|socket| {
        socket.set_nodelay(true).ok();
    });
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "Kinesis ended");
    }
}

async fn answer(State(kinesis): State<Kinesis>, headers: HeaderMap, body: Bytes) -> Response {
    let result = match request(&headers, &body) {
        Ok((operation, input)) => kinesis.call(operation, input).await,
        Err(refusal) => Err(refusal),
    };
    let (status, value) = match result {
        Ok(value) => (StatusCode::OK, value),
        Err(refusal) => (status(refusal.code), json!({ "__type": refusal.code, "message": refusal.message })),
    };
    let id = uuid::Uuid::new_v4().to_string();
    let headers = [("content-type", "application/x-amz-json-1.1".to_owned()), ("x-amzn-requestid", id)];
    (status, headers, value.to_string()).into_response()
}

fn request(headers: &HeaderMap, body: &[u8]) -> Result<(String, Value), Refusal> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if header(CONTENT_TYPE.as_str()).contains("cbor") {
        return refuse("SerializationException", "this server speaks JSON only: turn CBOR off (AWS_CBOR_DISABLE=true)");
    }
    let Some(operation) = header("x-amz-target").strip_prefix(PREFIX) else {
        return refuse("UnknownOperationException", format!("X-Amz-Target does not begin with {PREFIX}"));
    };
    match serde_json::from_slice(body) {
        Ok(input) => Ok((operation.to_owned(), input)),
        Err(error) => refuse("SerializationException", error.to_string()),
    }
}

fn status(code: &str) -> StatusCode {
    if code == "InternalFailure" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST }
}
