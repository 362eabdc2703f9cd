//! What is certain after an SDK call failed: the service's status, code and words, or how the connection broke.
//! Above: the adapters, each of which maps this to its port's kinds. Invariants: 1. only a refused connection or a failed name look-up counts as
//! never sent; 2. everything else without an answer is lost.

use std::{error::Error, io};

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request was never built: an argument is wrong, or there are no credentials.
    NotBuilt(String),
    /// It never reached the service.
    NotSent(String),
    /// It may have reached the service; there is no answer.
    Lost(String),
    /// The service answered with an error.
    Answered {
        /// HTTP status.
        status: u16,
        /// As in `SlowDown`; empty if there was none (answers to HEAD have no body).
        code: String,
        /// Code and message for people.
        reason: String,
    },
}

/// An error and what caused it, one after the other.
pub(crate) fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = error.source();
    }
    words
}

impl Failure {
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let words = || clip(&in_words(error));
        match error {
            SdkError::ConstructionFailure(_) => Self::NotBuilt(words()),
            SdkError::DispatchFailure(dispatch) if dispatch.is_user() => Self::NotBuilt(words()),
            SdkError::DispatchFailure(_) if never_sent(error) => Self::NotSent(words()),
            SdkError::ResponseError(answer) if answer.raw().status().as_u16() >= 300 => Self::Answered {
                status: answer.raw().status().as_u16(),
                code: String::new(),
                reason: format!("HTTP {} with an unreadable body", answer.raw().status().as_u16()),
            },
            SdkError::ServiceError(answer) => {
                let (status, inner) = (answer.raw().status().as_u16(), answer.err());
                let code = inner.code().unwrap_or_default().to_owned();
                let reason = clip(&format!("HTTP {status} {code} {}", inner.message().unwrap_or_default()));
                Self::Answered { status, code, reason }
            }
            // Time-outs, cut connections, answers cut short or of success that cannot be read.
            _ => Self::Lost(words()),
        }
    }

    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Answered { code, .. } => code,
            _ => "",
        }
    }

    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Answered { status, .. } => *status,
            _ => 0,
        }
    }

    pub(crate) fn reason(self) -> String {
        match self {
            Self::NotBuilt(reason) | Self::NotSent(reason) | Self::Lost(reason) | Self::Answered { reason, .. } => {
                reason
            }
        }
    }
}

/// True if the chain of causes holds a refused connection.
fn never_sent(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(now) = cause {
        let refused = now.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if refused || now.to_string() == "dns error" {
            return true;
        }
        cause = now.source();
    }
    false
}

/// Codes by which any service refuses for lack of permission or of valid credentials.
pub(crate) fn is_denied(status: u16, code: &str) -> bool {
    const CODES: [&str; 9] = [
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ];
    status == 401 || status == 403 || CODES.contains(&code)
}

/// Codes by which any service refuses for lack of throughput.
pub(crate) fn is_throttled(status: u16, code: &str) -> bool {
    const CODES: [&str; 10] = [
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "ReplicatedWriteConflictException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionConflictException",
        "TransactionInProgressException",
    ];
    status == 429 || CODES.contains(&code)
}

/// The first 500 bytes, cut at a character: an answer's text is not ours to bound otherwise.
fn clip(text: &str) -> String {
    let end = (0..=text.len().min(500)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(clip("short "), "short");
        let long = "é".repeat(400);
        assert_eq!(clip(&long).len(), 500);
        assert_eq!(clip(&format!("x{long}")).len(), 499);
    }
}
