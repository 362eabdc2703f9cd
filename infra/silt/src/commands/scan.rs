//! `silt scan`: the newest version of every row, merged on read; or the changelog.
//!
//! Neighbours: `siltstone_table::scan` reads; this module chooses columns and prints. Rows go out as they are read, but for aligned columns,
//! which are gathered in blocks of a thousand. Invariant: 1. a file that was there is replaced by a whole new one or not at all.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use serde_json::{Map, Value as Json};
use siltstone_format::{id::SnapshotId, types::DataType, value::Value};
use siltstone_lsm::rows::batch_of;
use siltstone_table::{
    Purpose, Table, Version,
    filter::Filter,
    scan::{ScanRequest, ScannedRow, changelog, scan},
    text,
};

use crate::{
    args::{Output, Place, Scan},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

const KINDS: [&str; 4] = ["+I", "-U", "+U", "-D"];
/// Rows gathered before columns are aligned or a batch is written.
const BLOCK: usize = 1_000;

pub(crate) async fn run(place: &Place, args: Scan, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    let version = args.tag.map_or_else(|| Version::from(args.snapshot), Version::Tag);
    let table = warehouse.table(&args.table, Purpose::Read).await?.as_of(&version).await?;
    let filter = match &args.filter {
        Some(text) => Filter::parse(text, &table.schema)?,
        None => Filter::default(),
    };
    let columns = columns(&table, args.select.as_deref())?;
    let request = ScanRequest { version, filter, limit: args.limit };
    let form = match (out.json, args.format) {
        (false, form) => form.unwrap_or(Output::Table),
        (true, None | Some(Output::Json)) => Output::Json,
        (true, Some(_)) => return Err(Failure::Usage("--json is --format json: give one of the two".to_owned())),
    };
    if form == Output::Parquet && args.changelog {
        return Err(Failure::Usage("--changelog prints row kinds: use --format json, csv or table".to_owned()));
    }
    let Some(path) = &args.output_file else {
        if form == Output::Parquet {
            return Err(Failure::Usage("Parquet goes to a file: add --output-file FILE".to_owned()));
        }
        let target = Box::new(std::io::BufWriter::new(std::io::stdout()));
        return print(&table, &request, Printer::new(&table, columns, form, args.changelog, target)?).await;
    };
    let staged = Staged::create(path)?;
    let target = Box::new(std::io::BufWriter::new(staged.open()?));
    let done = print(&table, &request, Printer::new(&table, columns, form, args.changelog, target)?).await?;
    staged.keep()?;
    Ok(done)
}

async fn print(table: &Table, request: &ScanRequest, mut printer: Printer<'_>) -> Result<Done, Failure> {
    let bar = out::progress("rows", None);
    let mut failed = None;
    let with_changelog = printer.changelog;
    let mut take = |snapshot: Option<SnapshotId>, row: ScannedRow| {
        bar.inc(1);
        match printer.row(snapshot, row) {
            Ok(()) => true,
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    };
    if with_changelog {
        changelog(table, request, |snapshot, row| take(Some(snapshot), row)).await?;
    } else {
        scan(table, request, |row| take(None, row)).await?;
    }
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    printer.finish()?;
    Ok(Done::Well)
}

/// A file that takes its name when it is whole; what is no ordinary file (a pipe, a device) is written as it is.
struct Staged {
    path: PathBuf,
    part: Option<PathBuf>,
}

impl Staged {
    fn create(path: &Path) -> Result<Self, Failure> {
        // A link stays one: the file that it names is replaced.
        let found = path.canonicalize();
        let path = found.as_deref().unwrap_or(path);
        let ordinary = std::fs::metadata(path).map_or(true, |found| found.is_file());
        let name = path.file_name().ok_or_else(|| Failure::Usage(format!("{}: no file name", path.display())))?;
        let part = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        Ok(Self { path: path.to_owned(), part: ordinary.then(|| path.with_file_name(part)) })
    }

    fn open(&self) -> Result<File, Failure> {
        let fault = |e: std::io::Error| Failure::Usage(format!("{}: {e}", self.path.display()));
        let file = File::create(self.part.as_ref().unwrap_or(&self.path)).map_err(fault)?;
        if let (Some(_), Ok(replaced)) = (&self.part, std::fs::metadata(&self.path)) {
            file.set_permissions(replaced.permissions()).map_err(fault)?;
        }
        Ok(file)
    }

    fn keep(mut self) -> Result<(), Failure> {
        let Some(part) = self.part.take() else { return Ok(()) };
        std::fs::rename(part, &self.path).map_err(|e| Failure::Problem(format!("{}: {e}", self.path.display())))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Nobody looks for it; an error here would hide the one that brought us here.
            std::fs::remove_file(part).ok();
        }
    }
}

/// Indices of the chosen columns.
fn columns(table: &Table, select: Option<&[String]>) -> Result<Vec<usize>, Failure> {
    let Some(names) = select else { return Ok((0..table.schema.fields.len()).collect()) };
    let known = || table.schema.fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            let unknown =
                || Failure::Usage(format!("--select {name}: {} has no such column, but {}", table.at.name, known()));
            table.schema.field_index(name).ok_or_else(unknown)
        })
        .collect()
}

struct Printer<'a> {
    table: &'a Table,
    columns: Vec<usize>,
    form: Output,
    changelog: bool,
    target: Option<Box<dyn Write + Send>>,
    parquet: Option<ArrowWriter<Box<dyn Write + Send>>>,
    cells: Vec<Vec<String>>,
    rows: Vec<Vec<Value>>,
    header_due: bool,
    empty: bool,
}

impl<'a> Printer<'a> {
    fn new(
        table: &'a Table,
        columns: Vec<usize>,
        form: Output,
        changelog: bool,
        target: Box<dyn Write + Send>,
    ) -> Result<Self, Failure> {
        let (mut plain, mut parquet) = (Some(target), None);
        if form == Output::Parquet {
            let schema = table.layout.values().project(&columns).map_err(|e| Failure::Problem(e.to_string()))?;
            let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
            if let Some(target) = plain.take() {
                let writer = ArrowWriter::try_new(target, Arc::new(schema), Some(properties));
                parquet = Some(writer.map_err(|e| Failure::Problem(e.to_string()))?);
            }
        }
        let header_due = form == Output::Csv;
        Ok(Self {
            table,
            columns,
            form,
            changelog,
            target: plain,
            parquet,
            cells: Vec::new(),
            rows: Vec::new(),
            header_due,
            empty: true,
        })
    }

    fn field(&self, column: usize) -> Option<(&str, &DataType)> {
        self.table.schema.fields.get(column).map(|f| (f.name.as_str(), &f.data_type))
    }

    fn header(&self) -> Vec<&str> {
        let own = if self.changelog { vec!["_SNAPSHOT", "_KIND"] } else { Vec::new() };
        own.into_iter().chain(self.columns.iter().filter_map(|c| self.field(*c).map(|(name, _)| name))).collect()
    }

    fn row(&mut self, snapshot: Option<SnapshotId>, row: ScannedRow) -> Result<(), Failure> {
        self.empty = false;
        match self.form {
            Output::Json => self.json(snapshot, &row),
            Output::Parquet => {
                self.rows.push(row.values);
                if self.rows.len() >= BLOCK { self.block() } else { Ok(()) }
            }
            Output::Csv | Output::Table => {
                let mut cells = Vec::new();
                if let Some(snapshot) = snapshot {
                    cells.extend([snapshot.0.to_string(), kind(row.kind).to_owned()]);
                }
                for column in &self.columns {
                    if let (Some((_, data_type)), Some(value)) = (self.field(*column), row.values.get(*column)) {
                        cells.push(match (self.form, value) {
                            (Output::Table, Value::Null) => "NULL".to_owned(),
                            (Output::Table, _) => out::cell(text::show(value, data_type)),
                            _ => text::show(value, data_type),
                        });
                    }
                }
                self.cells.push(cells);
                if self.cells.len() >= BLOCK { self.block() } else { Ok(()) }
            }
        }
    }

    fn json(&mut self, snapshot: Option<SnapshotId>, row: &ScannedRow) -> Result<(), Failure> {
        let mut object = Map::new();
        if let Some(snapshot) = snapshot {
            object.insert("_snapshot".to_owned(), Json::from(snapshot.0));
            object.insert("_kind".to_owned(), Json::from(kind(row.kind)));
        }
        for column in &self.columns {
            if let (Some((name, data_type)), Some(value)) = (self.field(*column), row.values.get(*column)) {
                object.insert(name.to_owned(), text::to_json(value, data_type));
            }
        }
        if let Some(target) = &mut self.target {
            writeln!(target, "{}", Json::Object(object))?;
        }
        Ok(())
    }

    /// Writes what was gathered.
    fn block(&mut self) -> Result<(), Failure> {
        if let Some(writer) = &mut self.parquet {
            let batch = batch_of(&self.table.layout, &self.rows).map_err(|e| Failure::Problem(e.to_string()))?;
            let chosen = batch.project(&self.columns).map_err(|e| Failure::Problem(e.to_string()))?;
            self.rows.clear();
            return writer.write(&chosen).map_err(|e| Failure::Problem(e.to_string()));
        }
        let cells = std::mem::take(&mut self.cells);
        let text = match self.form {
            Output::Csv => {
                let mut lines = Vec::new();
                if std::mem::take(&mut self.header_due) {
                    lines.push(csv_line(self.header().into_iter()));
                }
                lines.extend(cells.iter().map(|row| csv_line(row.iter().map(String::as_str))));
                lines.join("\n")
            }
            _ => out::table(&self.header(), &cells),
        };
        if let (Some(target), false) = (&mut self.target, text.is_empty()) {
            writeln!(target, "{text}")?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        if !self.cells.is_empty() || !self.rows.is_empty() || self.header_due {
            self.block()?;
        }
        if self.empty && self.form == Output::Table {
            // Not where the rows go: what reads them would take it for one.
            writeln!(std::io::stderr(), "no rows").ok();
        }
        if let Some(writer) = self.parquet.take() {
            writer.close().map_err(|e| Failure::Problem(e.to_string()))?;
        }
        if let Some(target) = &mut self.target {
            target.flush()?;
        }
        Ok(())
    }
}

fn kind(kind: i8) -> &'static str {
    usize::try_from(kind).ok().and_then(|k| KINDS.get(k).copied()).unwrap_or("??")
}

/// One line by RFC 4180.
fn csv_line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted = cells.map(|cell| {
        if cell.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.to_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_with_separators_are_quoted() {
        assert_eq!(csv_line(["a", "b,c", "d\"e", "f\ng"].into_iter()), "a,\"b,c\",\"d\"\"e\",\"f\ng\"");
    }

    #[test]
    fn a_file_is_replaced_when_the_new_one_is_whole_and_a_device_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        std::fs::write(&path, "precious").unwrap();
        let staged = Staged::create(&path).unwrap();
        staged.open().unwrap().write_all(b"half").unwrap();
        drop(staged);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
        let staged = Staged::create(&path).unwrap();
        staged.open().unwrap().write_all(b"whole").unwrap();
        staged.keep().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        assert!(Staged::create(Path::new("/dev/null")).unwrap().part.is_none());
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_link_to_it_stays_one() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("rows.csv"), dir.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&path, &link).unwrap();
        let staged = Staged::create(&link).unwrap();
        staged.open().unwrap().write_all(b"new").unwrap();
        staged.keep().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
