//! The item port on DynamoDB. Neighbours: `certainty` (what a failure proves), `clients`.
//! Invariants: 1. every read is consistent; 2. a failed condition returns the old item in the same answer
//! (`ReturnValuesOnConditionCheckFailure`); 3. no name of ours meets a reserved word: expressions use placeholders only.

use std::{collections::HashMap, error::Error};

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    Client,
    operation::{delete_item::DeleteItemError, put_item::PutItemError},
    primitives::Blob,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ReturnValue,
        ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TableStatus,
    },
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::Bytes;
use siltstone_store::{
    clock::Clock,
    item::{
        Attr, Item, ItemCondition, ItemContext, ItemError, ItemPage, ItemResult, ItemStore, PARTITION_ATTRIBUTE,
        REV_ATTRIBUTE, SORT_ATTRIBUTE, check_attribute, check_item, check_item_key,
    },
};

use crate::certainty::{Failure, is_denied, is_throttled};

type Attributes = HashMap<String, AttributeValue>;

/// One table of DynamoDB with partition key `p` and sort key `s`, both strings.
#[derive(Debug, Clone)]
pub struct DynamoItems {
    client: Client,
    table: String,
}

impl DynamoItems {
    /// Binds a table. Nothing is sent.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    fn context(&self, call: Call<'_>, reason: impl Into<String>) -> Box<ItemContext> {
        ItemContext::new(call.operation, &self.table, call.partition, call.sort, reason)
    }

    fn fail<E>(&self, call: Call<'_>, error: &SdkError<E, HttpResponse>) -> ItemError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = Failure::of(error);
        let variant = variant_of(&failure, call.write);
        variant(self.context(call, failure.reason()))
    }

    fn condition_failed(&self, call: Call<'_>, current: Option<&Attributes>) -> ItemError {
        // DynamoDB answers an absent item as no attributes, some local servers as an empty map.
        let current = current.filter(|c| !c.is_empty()).cloned().map(|c| self.decode(call, c)).transpose();
        match current {
            Ok(current) => ItemError::ConditionFailed { context: self.context(call, "condition failed"), current },
            Err(error) => error,
        }
    }

    fn decode(&self, call: Call<'_>, mut attributes: Attributes) -> ItemResult<Item> {
        let unreadable = |name: &str| {
            let reason = format!("attribute {name:?} is missing, out of range, or of a kind that is not used here");
            ItemError::Invalid(self.context(call, reason))
        };
        let mut text = |name: &str| match attributes.remove(name) {
            Some(AttributeValue::S(text)) => Ok(text),
            _ => Err(unreadable(name)),
        };
        let (partition, sort) = (text(PARTITION_ATTRIBUTE)?, text(SORT_ATTRIBUTE)?);
        let rev = match attributes.remove(REV_ATTRIBUTE) {
            None => 0,
            Some(AttributeValue::N(n)) => n.parse().map_err(|_| unreadable(REV_ATTRIBUTE))?,
            Some(_) => return Err(unreadable(REV_ATTRIBUTE)),
        };
        let mut item = Item::new(partition, sort, rev);
        for (name, value) in attributes {
            let value = match value {
                AttributeValue::S(text) => Attr::S(text),
                AttributeValue::N(n) => Attr::N(n.parse().map_err(|_| unreadable(&name))?),
                AttributeValue::B(blob) => Attr::B(Bytes::from(blob.into_inner())),
                _ => return Err(unreadable(&name)),
            };
            item.attributes.insert(name, value);
        }
        Ok(item)
    }
}

/// What is being asked, for errors.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    operation: &'static str,
    partition: &'a str,
    sort: &'a str,
    write: bool,
}

/// The port's variant of a failure.
fn variant_of(failure: &Failure, write: bool) -> fn(Box<ItemContext>) -> ItemError {
    let (status, code) = match failure {
        Failure::NotBuilt(_) => return ItemError::Invalid,
        Failure::NotSent(_) => return ItemError::Unavailable,
        Failure::Lost(_) => return ItemError::Unknown,
        Failure::Answered { .. } => (failure.status(), failure.code()),
    };
    let too_large = matches!(failure, Failure::Answered { reason, .. } if reason.contains("Item size"));
    match (status, code) {
        _ if is_throttled(status, code) => ItemError::Throttled,
        (_, "ResourceNotFoundException") => ItemError::Denied,
        _ if is_denied(status, code) => ItemError::Denied,
        (_, "ItemCollectionSizeLimitExceededException") => ItemError::TooLarge,
        (_, "ValidationException") if too_large => ItemError::TooLarge,
        (200..=299 | 408 | 500..=599, _) if write => ItemError::Unknown,
        (408 | 500..=599, _) => ItemError::Unavailable,
        _ => ItemError::Invalid,
    }
}

fn key(partition: &str, sort: &str) -> Attributes {
    HashMap::from([
        (PARTITION_ATTRIBUTE.to_owned(), AttributeValue::S(partition.to_owned())),
        (SORT_ATTRIBUTE.to_owned(), AttributeValue::S(sort.to_owned())),
    ])
}

fn encode(item: &Item) -> Attributes {
    let mut attributes = key(&item.partition, &item.sort);
    attributes.insert(REV_ATTRIBUTE.to_owned(), AttributeValue::N(item.rev.to_string()));
    for (name, value) in &item.attributes {
        let value = match value {
            Attr::S(text) => AttributeValue::S(text.clone()),
            Attr::N(n) => AttributeValue::N(n.to_string()),
            Attr::B(bytes) => AttributeValue::B(Blob::new(bytes.to_vec())),
        };
        attributes.insert(name.clone(), value);
    }
    attributes
}

/// A condition as expression, names and values.
#[derive(Debug, Default)]
struct Expression {
    text: Option<&'static str>,
    names: Option<HashMap<String, String>>,
    values: Option<Attributes>,
}

fn expression(condition: ItemCondition) -> Expression {
    let names = |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    match condition {
        ItemCondition::None => Expression::default(),
        ItemCondition::Absent => Expression {
            text: Some("attribute_not_exists(#p)"),
            names: names(&[("#p", PARTITION_ATTRIBUTE)]),
            values: None,
        },
        // An item made by `add` has no revision, which counts as 0.
        ItemCondition::RevIs(rev) => Expression {
            text: Some(if rev == 0 {
                "attribute_exists(#p) AND (#r = :r OR attribute_not_exists(#r))"
            } else {
                "attribute_exists(#p) AND #r = :r"
            }),
            names: names(&[("#p", PARTITION_ATTRIBUTE), ("#r", REV_ATTRIBUTE)]),
            values: Some(HashMap::from([(":r".to_owned(), AttributeValue::N(rev.to_string()))])),
        },
    }
}

#[async_trait]
impl ItemStore for DynamoItems {
    fn table(&self) -> &str {
        &self.table
    }

    async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>> {
        check_item_key("get", &self.table, partition, sort)?;
        let call = Call { operation: "get", partition, sort, write: false };
        let request = self.client.get_item().table_name(&self.table).set_key(Some(key(partition, sort)));
        let answer = request.consistent_read(true).send().await.map_err(|e| self.fail(call, &e))?;
        answer.item.map(|attributes| self.decode(call, attributes)).transpose()
    }

    async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
        check_item(&self.table, item)?;
        let call = Call { operation: "put", partition: &item.partition, sort: &item.sort, write: true };
        let Expression { text, names, values } = expression(condition);
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(encode(item)))
            .set_condition_expression(text.map(str::to_owned))
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(e)) => self.condition_failed(call, e.item()),
                _ => self.fail(call, &error),
            }),
        }
    }

    async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64> {
        check_item_key("add", &self.table, partition, sort)?;
        check_attribute("add", &self.table, partition, sort, attribute)?;
        let call = Call { operation: "add", partition, sort, write: true };
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(partition, sort)))
            .update_expression("ADD #a :d")
            .expression_attribute_names("#a", attribute)
            .expression_attribute_values(":d", AttributeValue::N(delta.to_string()))
            .return_values(ReturnValue::UpdatedNew)
            .send()
            .await;
        let answer = sent.map_err(|e| self.fail(call, &e))?;
        match answer.attributes.as_ref().and_then(|a| a.get(attribute)) {
            Some(AttributeValue::N(n)) => {
                n.parse().map_err(|_| ItemError::Invalid(self.context(call, "the sum does not fit 64 bits")))
            }
            _ => Err(ItemError::Unknown(self.context(call, "the answer has no sum"))),
        }
    }

    async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()> {
        check_item_key("delete", &self.table, partition, sort)?;
        let call = Call { operation: "delete", partition, sort, write: true };
        let Expression { text, names, values } = expression(condition);
        let sent = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key(partition, sort)))
            .set_condition_expression(text.map(str::to_owned))
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(e)) => self.condition_failed(call, e.item()),
                _ => self.fail(call, &error),
            }),
        }
    }

    async fn query(
        &self,
        partition: &str,
        sort_prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ItemResult<ItemPage> {
        let call = Call { operation: "query", partition, sort: sort_prefix, write: false };
        if partition.is_empty() || limit == 0 {
            return Err(ItemError::Invalid(self.context(call, "the partition is empty, or the limit is 0")));
        }
        // DynamoDB refuses a start outside the range it is asked for.
        let start = match start_after {
            Some(after) if after.starts_with(sort_prefix) => Some(after).filter(|after| !after.is_empty()),
            Some(after) if after > sort_prefix => return Ok(ItemPage::default()),
            _ => None,
        };
        let mut request = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .expression_attribute_names("#p", PARTITION_ATTRIBUTE)
            .expression_attribute_values(":p", AttributeValue::S(partition.to_owned()));
        request = if sort_prefix.is_empty() {
            request.key_condition_expression("#p = :p")
        } else {
            request
                .key_condition_expression("#p = :p AND begins_with(#s, :s)")
                .expression_attribute_names("#s", SORT_ATTRIBUTE)
                .expression_attribute_values(":s", AttributeValue::S(sort_prefix.to_owned()))
        };
        let request = request.set_exclusive_start_key(start.map(|after| key(partition, after)));
        let answer = request.send().await.map_err(|e| self.fail(call, &e))?;
        let more = answer.last_evaluated_key.is_some_and(|k| !k.is_empty());
        let items = answer.items.unwrap_or_default().into_iter().map(|a| self.decode(call, a));
        Ok(ItemPage { items: items.collect::<ItemResult<_>>()?, more })
    }
}

/// Makes the table that [`DynamoItems`] needs, billed on demand, and waits until it can be used. One that exists is left as it is, and
/// `Invalid` if its keys are others. For tests and the local stack: on AWS the infrastructure makes it.
pub async fn create_items_table(client: &Client, table: &str, clock: &dyn Clock) -> ItemResult<()> {
    let items = DynamoItems::new(client.clone(), table);
    let call = Call { operation: "create_table", partition: "", sort: "", write: true };
    let invalid = |e: aws_sdk_dynamodb::error::BuildError| ItemError::Invalid(items.context(call, e.to_string()));
    let mut request = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [(PARTITION_ATTRIBUTE, KeyType::Hash), (SORT_ATTRIBUTE, KeyType::Range)] {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        let element = KeySchemaElement::builder().attribute_name(name).key_type(kind);
        request = request.attribute_definitions(attribute.build().map_err(invalid)?);
        request = request.key_schema(element.build().map_err(invalid)?);
    }
    match request.send().await {
        Err(e) if !e.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => {
            return Err(items.fail(call, &e));
        }
        _ => {}
    }
    for _ in 0..600 {
        let described = client.describe_table().table_name(table).send().await;
        let found = described.map_err(|e| items.fail(call, &e))?.table;
        if let Some(found) = found.filter(|t| t.table_status == Some(TableStatus::Active)) {
            let keys: Vec<&str> = found.key_schema().iter().map(|k| k.attribute_name()).collect();
            if keys == [PARTITION_ATTRIBUTE, SORT_ATTRIBUTE] {
                return Ok(());
            }
            let reason = format!("the table exists with the keys {keys:?}; it needs p and s");
            return Err(ItemError::Invalid(items.context(call, reason)));
        }
        clock.sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(ItemError::Unavailable(items.context(call, "the table is not active after a minute")))
}
