//! The packed object: checkpoints of the shards that the pointer has no place for.
//!
//! Neighbours: `build` writes one when the pointer's own overflow; every protocol that looks at all shards reads it. Invariant: 1. an object is
//! never changed: a new one has a new name, so what a pointer names is what it was written with.

use crate::{
    checkpoint::Checkpoints,
    context::{OWN_DIRECTORY, TableContext},
    error::CommitError,
    io::Io,
    steps,
};

/// Reads the packed object with the checkpoints of the less recent shards, if there is one and it was not read yet.
pub(crate) async fn load_others(
    io: &Io,
    step: steps::StepName,
    context: &TableContext,
    checkpoints: &mut Checkpoints,
) -> Result<(), CommitError> {
    let Some(name) = checkpoints.packed_object().filter(|_| !checkpoints.has_others()) else { return Ok(()) };
    let key = context.key(name);
    let object = io.get_needed(step, vec![key.clone()]).await?.pop();
    let bytes = object.map(|o| o.body).unwrap_or_default();
    let others = Checkpoints::unpack_others(name, &bytes).map_err(|reason| CommitError::corrupt(key, reason))?;
    checkpoints.load_others(others);
    Ok(())
}

/// Moves all checkpoints into a new packed object.
pub(crate) async fn spill(io: &Io, context: &TableContext, checkpoints: &mut Checkpoints) -> Result<(), CommitError> {
    load_others(io, steps::COMMIT_READ, context, checkpoints).await?;
    let name = format!("{OWN_DIRECTORY}/checkpoints-{}", io.uuid(steps::COMMIT_MANIFESTS).await?);
    let bytes = checkpoints.spill(&name);
    io.put_new(steps::COMMIT_MANIFESTS, vec![(context.key(&name), bytes.into())]).await
}
