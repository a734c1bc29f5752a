//! OCSF events in the columns of a Parquet file: those that the mapping gives to the file's class.
//!
//! Objects are structures, lists are lists, and the attributes that OCSF asks of every event are required. `unmapped` is
//! JSON text: what is in there differs from event to event, and a column for each key would be a schema for each file.

use super::claims;
use crate::sink::Held;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use arrow_json::ReaderBuilder;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use custody_core::mapping::ocsf;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

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
    /// The file.
    #[error("not the Parquet that was written: {0}")]
    Parquet(#[from] ParquetError),
    /// A column is another one.
    #[error("its column {0} isn't what was written")]
    Column(&'static str),
}

/// A whole file of events of one class.
pub fn write(class: u64, documents: &[&[u8]]) -> Result<Vec<u8>, ColumnError> {
    let schema = Arc::new(schema(class));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_data_page_size_limit(PAGE_BYTES)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
    for documents in documents.chunks(ROWS) {
        let rows = documents.iter().map(|document| row(document)).collect::<Result<Vec<Value>, _>>()?;
        let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(ROWS).build_decoder()?;
        decoder.serialize(&rows)?;
        if let Some(batch) = decoder.flush()? {
            writer.write(&batch)?;
        }
    }
    Ok(writer.into_inner()?)
}

/// A document as a row: what isn't mapped becomes text.
fn row(document: &[u8]) -> Result<Value, serde_json::Error> {
    let mut row: Value = serde_json::from_slice(document)?;
    if let Some(unmapped) = row.get_mut("unmapped") {
        *unmapped = Value::String(unmapped.to_string());
    }
    Ok(row)
}

/// What the rows of a file claim to be.
pub fn read(file: &File, origin: &str) -> Result<Vec<Held>, ColumnError> {
    let file = file.try_clone().map_err(|error| ParquetError::External(Box::new(error)))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["raw_data", "time", "unmapped"]);
    let mut held = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        rows(&batch?, origin, &mut held)?;
    }
    Ok(held)
}

fn rows(batch: &RecordBatch, origin: &str, held: &mut Vec<Held>) -> Result<(), ColumnError> {
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
        held.extend(claims::of_columns(millis, raw, unmapped, origin));
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
