//! Event source mappings that a test sets. Neighbours: `mapping` (the port).

use std::{collections::BTreeMap, sync::Mutex};

use async_trait::async_trait;

use super::lock;
use crate::mapping::{EventSourceMappings, MappingError, MappingSettings};

/// Mappings by function name.
#[derive(Debug, Default)]
pub struct MemoryMappings(Mutex<BTreeMap<String, Vec<MappingSettings>>>);

impl MemoryMappings {
    /// No functions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the mappings of a function; an empty list makes a function without any.
    pub fn set(&self, function: impl Into<String>, mut mappings: Vec<MappingSettings>) {
        mappings.sort_by(|a, b| a.uuid.cmp(&b.uuid));
        lock(&self.0).insert(function.into(), mappings);
    }
}

#[async_trait]
impl EventSourceMappings for MemoryMappings {
    async fn kinesis_mappings(&self, function: &str) -> Result<Vec<MappingSettings>, MappingError> {
        lock(&self.0).get(function).cloned().ok_or_else(|| MappingError::NotFound {
            function: function.to_owned(),
            reason: "not set in memory".to_owned(),
        })
    }
}
