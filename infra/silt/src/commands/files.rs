//! `silt files`: the live data files of a snapshot, by bucket and level.
//!
//! Neighbours: `siltstone_table::state`. Rows counted here are physical: a key may be in several runs.

use serde_json::json;
use siltstone_commit::manifests::Scope;
use siltstone_format::binary_row::decode_row;
use siltstone_table::{Purpose, Table, state, text};

use crate::{
    args::{Files, Place},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

pub(crate) async fn run(place: &Place, args: Files, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let snapshot = table.snapshot(&args.snapshot.into()).await?;
    let mut rows = Vec::new();
    if let Some(snapshot) = snapshot {
        let entries =
            out::wait_for("reading manifests", state::live_files(&table, &snapshot, Scope::Everything)).await?;
        for ((partition, bucket), mut entries) in state::by_bucket(entries) {
            entries.sort_by_key(|e| (e.file.level.0, -e.file.max_sequence_number.0));
            let values = table.partition_values(&partition)?;
            let words = table.partition_words(&values)?;
            for entry in entries {
                let file = &entry.file;
                let (min, max) =
                    (key(&table, &file.file_name, &file.min_key), key(&table, &file.file_name, &file.max_key));
                rows.push((
                    json!({
                        "partition": words, "bucket": bucket.0, "level": file.level.0, "file": file.file_name,
                        "key": table.data_key(&values, bucket, &file.file_name)?, "bytes": file.file_size, "rows": file.row_count,
                        "deletes": file.delete_row_count, "minKey": min, "maxKey": max,
                        "minSequence": file.min_sequence_number.0, "maxSequence": file.max_sequence_number.0,
                        "schemaId": file.schema_id.0}),
                    vec![
                        words.clone(),
                        bucket.0.to_string(),
                        file.level.0.to_string(),
                        file.row_count.to_string(),
                        out::bytes(u64::try_from(file.file_size).unwrap_or(0)),
                        format!("{min} .. {max}"),
                        file.file_name.clone(),
                    ],
                ));
            }
        }
    }
    out.list(&["PARTITION", "BUCKET", "LEVEL", "ROWS", "SIZE", "KEYS", "FILE"], &rows, "no data files")?;
    Ok(Done::Well)
}

/// A key as people read it; a damaged one as such: this verb is used to look at damage.
fn key(table: &Table, file: &str, stored: &siltstone_format::data_file::StoredRow) -> String {
    let types = table.layout.key_types();
    match decode_row(file, stored, &types) {
        Ok(values) => values.iter().zip(&types).map(|(v, t)| text::show(v, t)).collect::<Vec<_>>().join(","),
        Err(_) => "unreadable".to_owned(),
    }
}
