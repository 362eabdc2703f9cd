//! What fuzzing starts from: the objects of tables that engines wrote (`tests/golden`, `shared/format/testdata`) and the sample events (`events`).
//!
//! Above: `targets` picks what each parser reads. Invariants: 1. files come in the order of their names, so that a seed repeats; 2. a folder that
//! is not there has no files: nothing else is assumed of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use siltstone_format::{
    data_file::DataFileMeta,
    manifest::{FileKind, decode_manifest},
    schema::TableSchema,
};

/// Files by their path below the repository.
#[derive(Debug, Default)]
pub struct Corpus {
    files: BTreeMap<String, Vec<u8>>,
}

/// A data file with what its manifest and schemas say of it.
#[derive(Debug)]
pub struct DataFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its manifest entry's description.
    pub meta: DataFileMeta,
    /// The schema that it was written under.
    pub written: TableSchema,
    /// The newest schema of its table.
    pub newest: TableSchema,
    /// Whether it is a changelog file.
    pub changelog: bool,
}

impl Corpus {
    /// Everything that stands in the repository.
    #[must_use]
    pub fn of_the_repository() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default();
        let mut corpus = Self::default();
        for folder in ["tests/golden", "shared/format/testdata", "events"] {
            corpus.add(&root, &root.join(folder));
        }
        corpus
    }

    fn add(&mut self, root: &Path, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                self.add(root, &path);
            } else if let (Ok(name), Ok(bytes)) = (path.strip_prefix(root).map(PathBuf::from), fs::read(&path)) {
                self.files.insert(name.to_string_lossy().into_owned(), bytes);
            }
        }
    }

    /// Files whose last part of the path passes.
    pub fn named(&self, mut passes: impl FnMut(&str) -> bool) -> Vec<Vec<u8>> {
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        self.files.iter().filter(|(path, _)| passes(&last(path))).map(|(_, bytes)| bytes.clone()).collect()
    }

    /// The sample events of a function.
    #[must_use]
    pub fn events(&self, function: &str) -> Vec<Vec<u8>> {
        let start = format!("events/{function}");
        self.files.iter().filter(|(path, _)| path.starts_with(&start)).map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Manifests (not lists, not index manifests), with the folder of their table.
    fn manifests(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().filter_map(|(path, bytes)| {
            let (table, name) = path.split_once("/manifest/")?;
            let is_one = name.starts_with("manifest-") && !name.starts_with("manifest-list-");
            is_one.then_some((table, bytes.as_slice()))
        })
    }

    /// The schemas of a table's folder, oldest first.
    #[must_use]
    pub fn schemas(&self, table: &str) -> Vec<TableSchema> {
        let start = format!("{table}/schema/schema-");
        let read = self.files.iter().filter(|(path, _)| path.starts_with(&start));
        let mut schemas: Vec<_> = read.filter_map(|(path, bytes)| TableSchema::from_json(path, bytes).ok()).collect();
        schemas.sort_by_key(|schema| schema.id);
        schemas
    }

    /// Every manifest entry's description of a file, with the schema that it was written under.
    #[must_use]
    pub fn described(&self) -> Vec<(String, DataFileMeta, TableSchema, TableSchema)> {
        let mut out = Vec::new();
        for (table, bytes) in self.manifests() {
            let schemas = self.schemas(table);
            for entry in decode_manifest(table, bytes).unwrap_or_default() {
                let written = schemas.iter().find(|schema| schema.id == entry.file.schema_id);
                if let (FileKind::Add, Some(written), Some(newest)) = (entry.kind, written, schemas.last()) {
                    out.push((table.to_owned(), entry.file, written.clone(), newest.clone()));
                }
            }
        }
        out
    }

    /// Every Parquet file that a manifest describes, once.
    #[must_use]
    pub fn data_files(&self) -> Vec<DataFile> {
        let by_name: BTreeMap<&str, &Vec<u8>> =
            self.files.iter().filter_map(|(path, bytes)| Some((path.rsplit('/').next()?, bytes))).collect();
        let mut files: Vec<DataFile> = Vec::new();
        for (_, meta, written, newest) in self.described() {
            let known = files.iter().any(|file| file.meta.file_name == meta.file_name);
            if let (false, true, Some(bytes)) =
                (known, meta.file_name.ends_with(".parquet"), by_name.get(meta.file_name.as_str()))
            {
                let changelog = meta.file_name.starts_with("changelog-");
                files.push(DataFile { bytes: (*bytes).clone(), meta, written, newest, changelog });
            }
        }
        files
    }
}
