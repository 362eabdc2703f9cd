//! What the proxy does to a request instead of passing it on, and the answers that it makes up.
//!
//! Neighbours: `plan` draws them, `proxy` performs them. Invariant: 1. each is something that the service, or the way to it, can do:
//! no answer says of a request that took effect that it did not, nor the other way round.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Response, StatusCode, header::CONTENT_TYPE},
};
use rand::{Rng, rngs::SmallRng};

use super::step::{Asked, Service};

const DELAY_MS: std::ops::Range<u64> = 50..1_500;
/// How late a request may take effect whose sender has given it up.
const LATE_MS: std::ops::Range<u64> = 100..8_000;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Lost before it reaches the service.
    RequestLost,
    /// The service does it, and the answer is lost.
    AnswerLost,
    /// The connection ends at once, and the service does it later.
    Late(Duration),
    /// The service does it later.
    Slow(Duration),
    /// Delivered twice, and the second answer comes back: 412 where the first took effect under a condition.
    Twice,
    /// The service does it and says 500.
    DoneButFailed,
    /// The service refuses: too much.
    Throttled,
    /// The service refuses: somebody else is at this key.
    Conflict,
    /// The service fails.
    Failed,
}

impl Fault {
    /// Any that can befall this request.
    pub(crate) fn draw(rng: &mut SmallRng, asked: &Asked) -> Self {
        let duration = |rng: &mut SmallRng, range| Duration::from_millis(rng.random_range(range));
        loop {
            return match rng.random_range(0..9) {
                0 => Self::RequestLost,
                1 => Self::AnswerLost,
                2 if asked.step.is_some() => Self::Late(duration(rng, LATE_MS)),
                3 => Self::Slow(duration(rng, DELAY_MS)),
                4 if asked.step.is_some() => Self::Twice,
                5 if asked.step.is_some() => Self::DoneButFailed,
                6 => Self::Throttled,
                7 if asked.service == Service::S3 && asked.conditional => Self::Conflict,
                8 => Self::Failed,
                _ => continue,
            };
        }
    }

    /// For the figures.
    pub(crate) fn name(self, service: Service) -> &'static str {
        match (self, service) {
            (Self::RequestLost, _) => "request lost",
            (Self::AnswerLost, _) => "answer lost",
            (Self::Late(_), _) => "late effect",
            (Self::Slow(_), _) => "slow",
            (Self::Twice, _) => "delivered twice",
            (Self::DoneButFailed, _) => "500 though done",
            (Self::Throttled, Service::S3) => "S3 503 SlowDown",
            (Self::Throttled, Service::DynamoDb) => "DynamoDB throttled",
            (Self::Throttled, Service::Kinesis) => "Kinesis throttled",
            (Self::Conflict, _) => "S3 409",
            (Self::Failed, _) => "500",
        }
    }

    /// The made up answer.
    pub(crate) fn answer(self, service: Service) -> Response<Body> {
        let (status, code) = match (self, service) {
            (Self::Throttled, Service::S3) => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            (Self::Throttled, _) => (StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException"),
            (Self::Conflict, _) => (StatusCode::CONFLICT, "ConditionalRequestConflict"),
            (_, Service::S3) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            (_, Service::DynamoDb) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
            (_, Service::Kinesis) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure"),
        };
        let (kind, body) = match service {
            Service::S3 => ("application/xml", format!("<Error><Code>{code}</Code><Message>chaos</Message></Error>")),
            Service::DynamoDb => (
                "application/x-amz-json-1.0",
                format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"chaos"}}"#),
            ),
            Service::Kinesis => ("application/x-amz-json-1.1", format!(r#"{{"__type":"{code}","message":"chaos"}}"#)),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(kind));
        response
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_read_is_never_late_nor_delivered_twice_and_each_other_fault_is_drawn() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut names = |asked: &Asked| -> std::collections::BTreeSet<&str> {
            (0..1_000).map(|_| Fault::draw(&mut rng, asked).name(asked.service)).collect()
        };
        let read = Asked { service: Service::S3, step: None, conditional: false, lists_snapshots: false };
        let put = Asked { step: Some("put snapshot".to_owned()), conditional: true, ..read.clone() };
        let of_reads = names(&read);
        assert!(!of_reads.contains("late effect") && !of_reads.contains("S3 409"), "{of_reads:?}");
        assert_eq!((of_reads.len(), names(&put).len()), (5, 9));
    }
}
