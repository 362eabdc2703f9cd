//! Builds the SDK clients once per process: one HTTP client, time-outs on, retries off.
//! Neighbours: the adapters. This is the only place of the crate that reads the environment.
//! Invariants: 1. all clients share one connection pool; 2. S3 uses path-style addresses exactly when its endpoint is set by hand.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the first byte of an answer, and between bytes.
    pub read: Duration,
    /// For a whole call, its body included. Longer than what a function keeps for its end: a request ends with its handler because the handler's
    /// future is dropped, not by this.
    pub operation: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), read: Duration::from_secs(20), operation: Duration::from_secs(60) }
    }
}

/// Addresses of a stack that is not AWS, as the local one. A service without one goes to AWS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// As in `http://127.0.0.1:4566`.
    pub s3: Option<String>,
    /// DynamoDB.
    pub dynamodb: Option<String>,
    /// Kinesis.
    pub kinesis: Option<String>,
    /// Lambda.
    pub lambda: Option<String>,
}

impl Endpoints {
    /// From `AWS_ENDPOINT_URL_S3`, `_DYNAMODB`, `_KINESIS`, `_LAMBDA`, and `AWS_ENDPOINT_URL` for those without.
    #[allow(clippy::disallowed_methods, reason = "settings are read once, here, at start")]
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        let of = |service: &str| set(&format!("AWS_ENDPOINT_URL_{service}")).or_else(|| set("AWS_ENDPOINT_URL"));
        Self { s3: of("S3"), dynamodb: of("DYNAMODB"), kinesis: of("KINESIS"), lambda: of("LAMBDA") }
    }
}

/// Why no request can be sent to AWS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAccess {
    /// None were found.
    #[error(
        "there are no AWS credentials{}: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `aws configure` and `aws sso login` make a profile",
        within_brackets(_0)
    )]
    Credentials(String),
    /// There are credentials, but nothing says where to.
    #[error("there is no AWS region: set AWS_REGION, or a region in the profile")]
    Region,
    /// Nobody answered.
    #[error(
        "no AWS credentials were found in {} s: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_REGION",
        _0.as_secs()
    )]
    Time(Duration),
}

fn within_brackets(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}

/// Why credentials that somebody set up do not come; nothing where nobody did: the SDK then tells of every place it looked at.
fn reason(error: &CredentialsError) -> String {
    if matches!(error, CredentialsError::CredentialsNotLoaded(_)) {
        return String::new();
    }
    let mut words = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        words.extend(error.to_string().lines().next().map(|line| line.chars().take(200).collect::<String>()));
        next = error.source();
    }
    words.dedup();
    words.join(": ")
}

/// One client per service over one connection pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    /// S3.
    pub s3: aws_sdk_s3::Client,
    /// DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Kinesis.
    pub kinesis: aws_sdk_kinesis::Client,
    /// Lambda.
    pub lambda: aws_sdk_lambda::Client,
}

impl Clients {
    /// From the usual AWS configuration: environment, profile, role.
    pub async fn from_env(timeouts: Timeouts) -> Self {
        Self::build(&loader(timeouts).load().await, &Endpoints::from_env())
    }

    /// As [`Clients::from_env`], for a person at a terminal: what every request would fail for is told before the first one.
    ///
    /// # Errors
    /// Without credentials or a region, or when finding them takes longer than `within`: a machine outside AWS may wait for an answer of the
    /// metadata service that never comes.
    pub async fn with_access(timeouts: Timeouts, within: Duration) -> Result<Self, NoAccess> {
        tokio::time::timeout(within, async {
            let shared = loader(timeouts).load().await;
            let provider = shared.credentials_provider().ok_or_else(|| NoAccess::Credentials(String::new()))?;
            provider.provide_credentials().await.map_err(|e| NoAccess::Credentials(reason(&e)))?;
            if shared.region().is_none() {
                return Err(NoAccess::Region);
            }
            Ok(Self::build(&shared, &Endpoints::from_env()))
        })
        .await
        .unwrap_or(Err(NoAccess::Time(within)))
    }

    /// For a stack at given addresses, in `us-east-1`, with the fixed credentials `test`/`test`. Reads no environment and no profile.
    pub async fn at(endpoints: &Endpoints, timeouts: Timeouts) -> Self {
        let credentials = Credentials::new("test", "test", None, None, "siltstone-local");
        let loader = loader(timeouts)
            .region(aws_config::Region::from_static("us-east-1"))
            .credentials_provider(credentials)
            .empty_test_environment();
        Self::build(&loader.load().await, endpoints)
    }

    fn build(shared: &SdkConfig, endpoints: &Endpoints) -> Self {
        let by_hand = endpoints.s3.is_some() || shared.endpoint_url().is_some();
        let mut s3 = aws_sdk_s3::config::Builder::from(shared).force_path_style(by_hand);
        if let Some(url) = &endpoints.s3 {
            s3 = s3.endpoint_url(url);
        }
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(shared);
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(shared);
        let mut lambda = aws_sdk_lambda::config::Builder::from(shared);
        if let Some(url) = &endpoints.dynamodb {
            dynamodb = dynamodb.endpoint_url(url);
        }
        if let Some(url) = &endpoints.kinesis {
            kinesis = kinesis.endpoint_url(url);
        }
        if let Some(url) = &endpoints.lambda {
            lambda = lambda.endpoint_url(url);
        }
        Self {
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis.build()),
            lambda: aws_sdk_lambda::Client::from_conf(lambda.build()),
        }
    }
}

fn loader(timeouts: Timeouts) -> aws_config::ConfigLoader {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.read)
        .operation_timeout(timeouts.operation)
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_of_a_service_goes_before_the_common_one() {
        let vars = |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some("http://all".to_owned()),
            "AWS_ENDPOINT_URL_S3" => Some("http://s3".to_owned()),
            "AWS_ENDPOINT_URL_KINESIS" => Some(String::new()),
            _ => None,
        };
        let endpoints = Endpoints::from_vars(vars);
        assert_eq!(endpoints.s3.as_deref(), Some("http://s3"));
        assert_eq!(endpoints.kinesis.as_deref(), Some("http://all"));
        assert_eq!(Endpoints::from_vars(|_| None), Endpoints::default());
    }

    #[tokio::test]
    async fn clients_of_a_stack_never_retry_inside() {
        let endpoints = Endpoints { s3: Some("http://127.0.0.1:1".to_owned()), ..Endpoints::default() };
        let clients = Clients::at(&endpoints, Timeouts::default()).await;
        assert_eq!(clients.s3.config().retry_config().unwrap().max_attempts(), 1);
        assert_eq!(clients.dynamodb.config().retry_config().unwrap().max_attempts(), 1);
        assert_eq!(clients.kinesis.config().retry_config().unwrap().max_attempts(), 1);
        assert_eq!(clients.lambda.config().retry_config().unwrap().max_attempts(), 1);
    }
}
