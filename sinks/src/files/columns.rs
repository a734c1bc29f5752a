//! OCSF events in the columns of a Parquet file: those that the mapping gives to the file's class.
//!
//! Objects are structures, lists are lists, and the attributes that OCSF asks of every event are required. `unmapped` is
//! JSON text: what is in there differs from event to event, and a column for each key would be a schema for each file.

use super::claims;
use crate::sink::Held;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use arrow_json::{LineDelimitedWriter, ReaderBuilder};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use custody_core::mapping::ocsf;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// Rows that become columns at once.
const ROWS: usize = 1_024;
/// What the service asks for, uncompressed.
const PAGE_BYTES: usize = 1 << 20;

/// What every event has, whatever its class is.
const BASE: [&str; 17] = [
    "activity_id",
    "activity_name",
    "category_name",
    "category_uid",
    "class_name",
    "class_uid",
    "message",
    "metadata.version",
    "raw_data",
    "severity",
    "severity_id",
    "status",
    "status_id",
    "time",
    "type_uid",
    "unmapped",
    "metadata.product.name",
];
/// What OCSF requires of every event.
const REQUIRED: [&str; 7] =
    ["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"];

/// What goes wrong with columns.
#[derive(Debug, thiserror::Error)]
pub enum ColumnError {
    /// A document doesn't fit.
    #[error("an event doesn't fit into its columns: {0}")]
    Row(#[from] ArrowError),
    /// A document that isn't JSON.
    #[error("an event isn't JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// There are fewer rows than a moment ago.
    #[error("it was changed while it was read")]
    Changed,
    /// The file.
    #[error("not the Parquet that was written: {0}")]
    Parquet(#[from] ParquetError),
    /// A column is another one.
    #[error("its column {0} isn't what was written")]
    Column(&'static str),
}

/// The columns of each class.
static SCHEMAS: LazyLock<BTreeMap<u64, Arc<Schema>>> =
    LazyLock::new(|| ocsf::classes().map(|class| (class, Arc::new(schema(class)))).collect());

fn schema_of(class: u64) -> Arc<Schema> {
    SCHEMAS.get(&class).map_or_else(|| Arc::new(schema(class)), Arc::clone)
}

/// A whole file of events of one class.
pub fn write(class: u64, documents: &[&[u8]]) -> Result<Vec<u8>, ColumnError> {
    let schema = schema_of(class);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_data_page_size_limit(PAGE_BYTES)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
    for documents in documents.chunks(ROWS) {
        if let Some(batch) = batch(&schema, documents)? {
            writer.write(&batch)?;
        }
    }
    Ok(writer.into_inner()?)
}

/// Up to [`ROWS`] documents in columns.
fn batch(schema: &Arc<Schema>, documents: &[&[u8]]) -> Result<Option<RecordBatch>, ColumnError> {
    let rows = documents.iter().map(|document| row(document)).collect::<Result<Vec<Value>, _>>()?;
    let mut decoder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(ROWS).build_decoder()?;
    decoder.serialize(&rows)?;
    Ok(decoder.flush()?)
}

/// A document as a row: what isn't mapped becomes text.
fn row(document: &[u8]) -> Result<Value, serde_json::Error> {
    let mut row: Value = serde_json::from_slice(document)?;
    if let Some(unmapped) = row.get_mut("unmapped") {
        *unmapped = Value::String(unmapped.to_string());
    }
    Ok(row)
}

/// A document as it is read out of its columns, as JSON: what [`read`] gives of it where nobody touched it.
pub fn as_read(class: u64, document: &[u8]) -> Result<Vec<u8>, ColumnError> {
    let batch = batch(&schema_of(class), &[document])?.ok_or(ColumnError::Changed)?;
    json(&batch)?.pop().ok_or(ColumnError::Changed)
}

/// What the rows of a file claim to be. Those that claim an index in `whole` come with all of their columns.
pub fn read(file: &File, origin: &str, whole: &Range<u64>) -> Result<Vec<Held>, ColumnError> {
    let builder = opened(file)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["raw_data", "time", "unmapped"]);
    let mut held: Vec<Option<Held>> = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        rows(&batch?, origin, &mut held)?;
    }
    let is_whole = |held: &Option<Held>| {
        held.as_ref().and_then(|held| held.index).is_some_and(|index| whole.contains(&index))
    };
    if let (Some(first), Some(last)) = (held.iter().position(is_whole), held.iter().rposition(is_whole)) {
        // Rows are in the order of time, and so those of a part of the log lie together.
        let reader = opened(file)?.with_offset(first).with_limit(last + 1 - first).build()?;
        let mut documents = Vec::new();
        for batch in reader {
            documents.extend(json(&batch?)?);
        }
        if documents.len() != last + 1 - first {
            return Err(ColumnError::Changed);
        }
        for (held, document) in held.iter_mut().skip(first).zip(documents) {
            if let Some(held) = held.as_mut() {
                held.document = Some(document);
            }
        }
    }
    Ok(held.into_iter().flatten().collect())
}

fn opened(file: &File) -> Result<ParquetRecordBatchReaderBuilder<File>, ColumnError> {
    let file = file.try_clone().map_err(|error| ParquetError::External(Box::new(error)))?;
    Ok(ParquetRecordBatchReaderBuilder::try_new(file)?)
}

/// Rows as JSON. A structure without anything in it and one that isn't there are the same to whoever reads columns.
fn json(batch: &RecordBatch) -> Result<Vec<Vec<u8>>, ColumnError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let lines = writer.into_inner();
    let read = |line: &[u8]| {
        let mut row: Value = serde_json::from_slice(line)?;
        if let Some(unmapped) = row.get_mut("unmapped")
            && let Some(object) = unmapped.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *unmapped = object;
        }
        Ok(serde_json::to_vec(&without_empty(row))?)
    };
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(read).collect()
}

fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, without_empty(value)));
            let is_empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
            fields.filter(|(_, value)| !is_empty(value)).collect()
        }
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        other => other,
    }
}

fn rows(batch: &RecordBatch, origin: &str, held: &mut Vec<Option<Held>>) -> Result<(), ColumnError> {
    let text = |name: &'static str| {
        let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.ok_or(ColumnError::Column(name))
    };
    let (raw_data, unmapped) = (text("raw_data")?, text("unmapped")?);
    let time = batch.column_by_name("time").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let time = time.ok_or(ColumnError::Column("time"))?;
    for row in 0..batch.num_rows() {
        let millis =
            (!time.is_null(row)).then(|| time.value(row)).and_then(|millis| u64::try_from(millis).ok());
        let raw = (!raw_data.is_null(row)).then(|| raw_data.value(row).to_owned());
        let unmapped = if unmapped.is_null(row) { "" } else { unmapped.value(row) };
        held.push(claims::of_columns(millis, raw, unmapped, origin));
    }
    Ok(())
}

/// The columns of a class, by name.
pub fn schema(class: u64) -> Schema {
    let mut tree = BTreeMap::new();
    for path in BASE.into_iter().chain(ocsf::attributes(class)) {
        put(&mut tree, path);
    }
    Schema::new(fields(tree, true))
}

/// A column, or those in an object.
enum Node {
    Column(DataType),
    Object { list: bool, inner: BTreeMap<String, Node> },
}

fn put(tree: &mut BTreeMap<String, Node>, path: &str) {
    let Some((first, rest)) = path.split_once('.') else {
        tree.entry(path.to_owned()).or_insert_with(|| Node::Column(kind(path)));
        return;
    };
    let (name, list) = match first.strip_suffix("[0]") {
        Some(name) => (name, true),
        None => (first, false),
    };
    let node = tree.entry(name.to_owned()).or_insert_with(|| Node::Object { list, inner: BTreeMap::new() });
    if let Node::Object { inner, .. } = node {
        put(inner, rest);
    }
}

fn fields(tree: BTreeMap<String, Node>, outermost: bool) -> Fields {
    let field = |(name, node): (String, Node)| {
        let required = outermost && REQUIRED.contains(&name.as_str());
        let kind = match node {
            Node::Column(kind) => kind,
            Node::Object { list: false, inner } => DataType::Struct(fields(inner, false)),
            Node::Object { list: true, inner } => {
                DataType::List(Arc::new(Field::new("element", DataType::Struct(fields(inner, false)), true)))
            }
        };
        Field::new(name, kind, !required)
    };
    tree.into_iter().map(field).collect()
}

/// OCSF's types of the attributes that we have: by their names, which mean the same everywhere.
fn kind(path: &str) -> DataType {
    match path {
        "bytes_in" | "bytes_out" | "duration" | "exit_code" | "logged_time" | "size" | "time"
        | "type_uid" => DataType::Int64,
        "category_uid" | "class_uid" | "pid" | "port" | "protocol_num" => DataType::Int32,
        "has_mfa" | "is_mfa" | "is_remote" => DataType::Boolean,
        "profiles" => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
        name if name.ends_with("_id") => DataType::Int32,
        _ => DataType::Utf8,
    }
}
