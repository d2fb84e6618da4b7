//! GGUF, ggml's one-file model format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! The reader works on a mapped file, believes no number in it, and copies neither strings nor tensors.

use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use std::collections::HashMap;
use std::io::Write;
use tealight_core::{Error, Result};

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: usize = 32;
/// Counts beyond these are damage, not models.
const MAX_ENTRIES: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;

/// A value of the header.
#[derive(Debug, Clone)]
pub enum Value {
    /// Any unsigned integer.
    Uint(u64),
    /// Any signed integer.
    Int(i64),
    /// f32 or f64.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// UTF-8, checked when asked for.
    String(Bytes),
    /// Values of one kind, still encoded.
    Array(Array),
}

/// An array of the header, decoded when asked for.
#[derive(Debug, Clone)]
pub struct Array {
    kind: u32,
    count: usize,
    wide: bool,
    data: Bytes,
}

/// A tensor as it stands in a file.
#[derive(Debug, Clone)]
pub struct TensorData {
    /// Row-major: the last dimension is contiguous.
    pub shape: Vec<usize>,
    /// The format of `data`.
    pub dtype: Dtype,
    /// The values.
    pub data: Bytes,
}

/// The format of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// Numbers, in a format that candle decodes.
    Ggml(GgmlDType),
    /// Bytes, in a layout of ours.
    I8,
}

impl Dtype {
    /// The format of one of GGUF's and GGML's numbers.
    pub fn of_kind(kind: u32) -> Option<Self> {
        KINDS.iter().find(|(k, _)| *k == kind).map(|(_, dtype)| *dtype)
    }

    fn kind(self) -> u32 {
        KINDS.iter().find(|(_, dtype)| *dtype == self).map_or(u32::MAX, |(kind, _)| *kind)
    }

    /// Values of a block, and its bytes.
    fn block(self) -> (usize, usize) {
        match self {
            Dtype::Ggml(dtype) => (dtype.block_size(), dtype.type_size()),
            Dtype::I8 => (1, 1),
        }
    }
}

/// GGUF's numbers for the formats that are read here.
const KINDS: [(u32, Dtype); 14] = [
    (0, Dtype::Ggml(GgmlDType::F32)),
    (1, Dtype::Ggml(GgmlDType::F16)),
    (2, Dtype::Ggml(GgmlDType::Q4_0)),
    (3, Dtype::Ggml(GgmlDType::Q4_1)),
    (6, Dtype::Ggml(GgmlDType::Q5_0)),
    (7, Dtype::Ggml(GgmlDType::Q5_1)),
    (8, Dtype::Ggml(GgmlDType::Q8_0)),
    (10, Dtype::Ggml(GgmlDType::Q2K)),
    (11, Dtype::Ggml(GgmlDType::Q3K)),
    (12, Dtype::Ggml(GgmlDType::Q4K)),
    (13, Dtype::Ggml(GgmlDType::Q5K)),
    (14, Dtype::Ggml(GgmlDType::Q6K)),
    (24, Dtype::I8),
    (30, Dtype::Ggml(GgmlDType::BF16)),
];

impl TensorData {
    /// A tensor of bytes in a layout of ours.
    pub fn bytes(data: Bytes) -> Self {
        Self { shape: vec![data.len()], dtype: Dtype::I8, data }
    }

    /// A tensor of f32 values.
    pub fn f32(shape: Vec<usize>, values: &[f32]) -> Self {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into();
        Self { shape, dtype: Dtype::Ggml(GgmlDType::F32), data }
    }
}

/// The header of a file, and its tensors.
#[derive(Debug)]
pub struct Gguf {
    /// Metadata by key.
    pub metadata: HashMap<String, Value>,
    /// Tensors by name.
    pub tensors: HashMap<String, TensorData>,
}

/// A place in a file that is being read.
struct Cursor<'a> {
    file: &'a Bytes,
    at: usize,
    wide: bool,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.file.len() - self.at
    }

    fn take(&mut self, what: &str, n: usize) -> Result<&'a [u8]> {
        if n > self.left() {
            return Err(Error::invalid_model(format!(
                "GGUF {what} at byte {} needs {n} bytes, {} are left",
                self.at,
                self.left()
            )));
        }
        let bytes = &self.file[self.at..self.at + n];
        self.at += n;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length: 4 bytes in version 1, 8 since.
    fn length(&mut self, what: &str) -> Result<u64> {
        if self.wide { self.u64(what) } else { Ok(self.u32(what)? as u64) }
    }

    fn bounded(&mut self, what: &str, limit: u64) -> Result<usize> {
        let n = self.length(what)?;
        if n > limit {
            return Err(Error::invalid_model(format!("GGUF {what} is {n}, the limit is {limit}")));
        }
        Ok(n as usize)
    }

    fn bytes(&mut self, what: &str) -> Result<&'a [u8]> {
        let n = self.bounded(what, self.left() as u64)?;
        self.take(what, n)
    }

    fn name(&mut self, what: &str) -> Result<String> {
        utf8(self.bytes(what)?, what).map(str::to_string)
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32("value type")?;
        if kind == ARRAY { self.array_value(key) } else { self.scalar(kind, key) }
    }

    fn scalar(&mut self, kind: u32, key: &str) -> Result<Value> {
        Ok(match kind {
            0 => Value::Uint(self.array::<1>(key)?[0] as u64),
            1 => Value::Int(self.array::<1>(key)?[0] as i8 as i64),
            2 => Value::Uint(u16::from_le_bytes(self.array(key)?) as u64),
            3 => Value::Int(i16::from_le_bytes(self.array(key)?) as i64),
            4 => Value::Uint(self.u32(key)? as u64),
            5 => Value::Int(self.u32(key)? as i32 as i64),
            6 => Value::Float(f32::from_bits(self.u32(key)?) as f64),
            7 => Value::Bool(self.array::<1>(key)?[0] != 0),
            STRING => Value::String(self.file.slice_ref(self.bytes(key)?)),
            10 => Value::Uint(self.u64(key)?),
            11 => Value::Int(self.u64(key)? as i64),
            12 => Value::Float(f64::from_bits(self.u64(key)?)),
            _ => return Err(Error::invalid_model(format!("GGUF key {key:?} has the unknown type {kind}"))),
        })
    }

    fn array_value(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32("element type")?;
        let count = self.bounded(key, self.left() as u64)?;
        let (start, wide) = (self.at, self.wide);
        match width(kind) {
            Some(width) => drop(self.take(key, count * width)?),
            None if kind == STRING => {
                for _ in 0..count {
                    self.bytes(key)?;
                }
            }
            None => {
                return Err(Error::invalid_model(format!("GGUF key {key:?} is an array of the unknown type {kind}")));
            }
        }
        let data = self.file.slice(start..self.at);
        Ok(Value::Array(Array { kind, count, wide, data }))
    }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

fn width(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Error::invalid_model(format!("GGUF {what} is not UTF-8")))
}

impl Array {
    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether its strings have lengths of 64 bits, as in files of version 2 and 3.
    pub fn is_wide(&self) -> bool {
        self.wide
    }

    /// Its bytes, still encoded.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Its strings, parts of [`Array::data`].
    ///
    /// # Errors
    /// It holds something else, or a string is not UTF-8.
    pub fn strings(&self) -> Result<Vec<&str>> {
        if self.kind != STRING {
            return Err(Error::invalid_model("GGUF array does not hold strings"));
        }
        let mut cursor = Cursor { file: &self.data, at: 0, wide: self.wide };
        (0..self.count).map(|_| utf8(cursor.bytes("string")?, "string")).collect()
    }

    /// Its integers.
    ///
    /// # Errors
    /// It holds something else.
    pub fn integers(&self) -> Result<Vec<i64>> {
        if !matches!(self.kind, 0..=5 | 10 | 11) {
            return Err(Error::invalid_model("GGUF array does not hold integers"));
        }
        let mut cursor = Cursor { file: &self.data, at: 0, wide: self.wide };
        let integer = |_| {
            Ok(match cursor.scalar(self.kind, "array")? {
                Value::Int(i) => i,
                Value::Uint(u) => u as i64,
                _ => 0,
            })
        };
        (0..self.count).map(integer).collect()
    }

    /// Its numbers, of f32.
    ///
    /// # Errors
    /// It holds something else.
    pub fn floats(&self) -> Result<Vec<f32>> {
        if self.kind != 6 {
            return Err(Error::invalid_model("GGUF array does not hold f32"));
        }
        Ok(self.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}

impl Gguf {
    /// Reads the header of a file, versions 1 to 3, little-endian.
    ///
    /// # Errors
    /// Anything in the header that the file cannot hold: each error names the entry, its value and the limit.
    pub fn parse(data: Bytes) -> Result<Self> {
        let mut cursor = Cursor { file: &data, at: 0, wide: true };
        if &cursor.array::<4>("magic")? != MAGIC {
            return Err(Error::invalid_model("not a GGUF file: it does not begin with \"GGUF\""));
        }
        let version = cursor.u32("version")?;
        if !(1..=3).contains(&version) {
            return Err(Error::invalid_model(format!("GGUF version is {version}; versions 1 to 3 are read")));
        }
        cursor.wide = version > 1;
        let tensor_count = cursor.bounded("tensor count", MAX_ENTRIES)?;
        let entry_count = cursor.bounded("metadata count", MAX_ENTRIES)?;
        let mut metadata = HashMap::new();
        for _ in 0..entry_count {
            let key = cursor.name("metadata key")?;
            let value = cursor.value(&key)?;
            metadata.insert(key, value);
        }
        let infos = (0..tensor_count).map(|_| TensorInfo::read(&mut cursor)).collect::<Result<Vec<_>>>()?;
        let start = cursor.at.next_multiple_of(alignment(&metadata)?);
        let mut tensors = HashMap::new();
        for info in infos {
            let (name, tensor) = info.locate(&data, start)?;
            if tensors.contains_key(&name) {
                return Err(Error::invalid_model(format!("GGUF tensor {name:?} is there twice")));
            }
            tensors.insert(name, tensor);
        }
        Ok(Self { metadata, tensors })
    }

    /// The value of a key, if the file has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A string, if the key is there.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(bytes)) => utf8(bytes, key).map(Some),
            Some(_) => Err(wrong(key, "a string")),
        }
    }

    /// An unsigned integer, if the key is there.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Uint(u)) => Ok(Some(*u)),
            Some(Value::Int(i)) if *i >= 0 => Ok(Some(*i as u64)),
            Some(_) => Err(wrong(key, "an unsigned integer")),
        }
    }

    /// A float, if the key is there.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(f)) => Ok(Some(*f)),
            Some(_) => Err(wrong(key, "a float")),
        }
    }

    /// A truth value, if the key is there.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(wrong(key, "a truth value")),
        }
    }

    /// An array, if the key is there.
    pub fn array(&self, key: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(_) => Err(wrong(key, "an array")),
        }
    }
}

/// The error of a required key that is not there.
pub fn missing(key: &str) -> Error {
    Error::invalid_model(format!("GGUF key {key:?} is missing"))
}

fn wrong(key: &str, expected: &str) -> Error {
    Error::invalid_model(format!("GGUF key {key:?} is not {expected}"))
}

fn alignment(metadata: &HashMap<String, Value>) -> Result<usize> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Uint(n)) if n.is_power_of_two() && (8..=1 << 20).contains(n) => Ok(*n as usize),
        Some(other) => Err(Error::invalid_model(format!(
            "GGUF key \"general.alignment\" is {other:?}, it must be a power of two from 8 to 1048576"
        ))),
    }
}

struct TensorInfo {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    offset: u64,
}

impl TensorInfo {
    fn read(cursor: &mut Cursor) -> Result<Self> {
        let name = cursor.name("tensor name")?;
        let dimensions = cursor.u32("number of dimensions")?;
        if dimensions > MAX_DIMENSIONS {
            return Err(Error::invalid_model(format!(
                "GGUF tensor {name:?} has {dimensions} dimensions, the limit is {MAX_DIMENSIONS}"
            )));
        }
        // GGUF lists the contiguous dimension first.
        let mut shape =
            (0..dimensions).map(|_| Ok(cursor.length("dimension")? as usize)).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        let kind = cursor.u32("tensor type")?;
        let dtype = Dtype::of_kind(kind).ok_or_else(|| {
            Error::invalid_model(format!("GGUF tensor {name:?} has the type {kind}, which is not read here"))
        })?;
        let offset = cursor.u64("tensor offset")?;
        Ok(Self { name, shape, dtype, offset })
    }

    fn locate(self, data: &Bytes, start: usize) -> Result<(String, TensorData)> {
        let Self { name, shape, dtype, offset } = self;
        let bytes = size(&shape, dtype).ok_or_else(|| {
            Error::invalid_model(format!("GGUF tensor {name:?} of shape {shape:?} is not whole blocks of {dtype:?}"))
        })?;
        let begin = usize::try_from(offset).ok().and_then(|o| o.checked_add(start));
        let end = begin.and_then(|b| b.checked_add(bytes));
        match (begin, end) {
            (Some(begin), _) if !begin.is_multiple_of(8) => Err(Error::invalid_model(format!(
                "GGUF tensor {name:?} at offset {offset} is at byte {begin} of the file, which is no multiple of 8"
            ))),
            (Some(begin), Some(end)) if end <= data.len() => {
                let data = data.slice(begin..end);
                Ok((name, TensorData { shape, dtype, data }))
            }
            _ => Err(Error::invalid_model(format!(
                "GGUF tensor {name:?} at offset {offset} with {bytes} bytes is not inside the file of {} bytes",
                data.len()
            ))),
        }
    }
}

/// Bytes of a tensor, or `None` where they overflow or a row is not whole blocks.
pub fn size(shape: &[usize], dtype: Dtype) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let row = shape.last().copied().unwrap_or(1);
    let (values, bytes) = dtype.block();
    if row.is_multiple_of(values) { (elements / values).checked_mul(bytes) } else { None }
}

/// A value to write.
#[derive(Debug, Clone)]
pub enum Entry {
    /// u32.
    Uint(u32),
    /// f32.
    Float(f32),
    /// A truth value.
    Bool(bool),
    /// A string.
    String(String),
    /// An array of strings.
    Strings(Vec<String>),
    /// An array of i32.
    Ints(Vec<i32>),
    /// An array of f32.
    Floats(Vec<f32>),
    /// A value of another file, of version 2 or 3.
    Copied(Value),
}

/// What tensors are aligned to in files written here: a line of the cache.
const ALIGNMENT: usize = 64;

/// Writes a GGUF file, version 3: metadata and tensors in the order given, so that equal input gives equal bytes.
pub fn write(
    out: &mut dyn Write,
    metadata: &[(String, Entry)],
    tensors: &[(String, TensorData)],
) -> std::io::Result<()> {
    let mut header = Vec::new();
    header.extend_from_slice(MAGIC);
    put_u32(&mut header, 3);
    put_u64(&mut header, tensors.len());
    put_u64(&mut header, metadata.len() + 1);
    let alignment = ("general.alignment".to_string(), Entry::Uint(ALIGNMENT as u32));
    for (key, entry) in metadata.iter().chain([&alignment]) {
        put_string(&mut header, key);
        put_entry(&mut header, entry);
    }
    let mut offset = 0;
    for (name, tensor) in tensors {
        put_string(&mut header, name);
        put_u32(&mut header, tensor.shape.len() as u32);
        for d in tensor.shape.iter().rev() {
            put_u64(&mut header, *d);
        }
        put_u32(&mut header, tensor.dtype.kind());
        put_u64(&mut header, offset);
        offset += tensor.data.len().next_multiple_of(ALIGNMENT);
    }
    out.write_all(&header)?;
    pad(out, header.len())?;
    for (_, tensor) in tensors {
        out.write_all(&tensor.data)?;
        pad(out, tensor.data.len())?;
    }
    Ok(())
}

fn pad(out: &mut dyn Write, written: usize) -> std::io::Result<()> {
    out.write_all(&[0; ALIGNMENT][..written.next_multiple_of(ALIGNMENT) - written])
}

fn put_u32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, v: usize) {
    out.extend_from_slice(&(v as u64).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, s: &str) {
    put_u64(out, s.len());
    out.extend_from_slice(s.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Uint(v) => {
            put_u32(out, 10);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Int(v) => {
            put_u32(out, 11);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Float(v) => {
            put_u32(out, 12);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Bool(v) => {
            put_u32(out, 7);
            out.push(*v as u8);
        }
        Value::String(v) => {
            put_u32(out, STRING);
            put_u64(out, v.len());
            out.extend_from_slice(v);
        }
        Value::Array(v) => {
            put_u32(out, ARRAY);
            put_u32(out, v.kind);
            put_u64(out, v.count);
            out.extend_from_slice(&v.data);
        }
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Uint(v) => {
            put_u32(out, 4);
            put_u32(out, *v);
        }
        Entry::Float(v) => {
            put_u32(out, 6);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Entry::Bool(v) => {
            put_u32(out, 7);
            out.push(*v as u8);
        }
        Entry::String(v) => {
            put_u32(out, STRING);
            put_string(out, v);
        }
        Entry::Strings(v) => {
            put_u32(out, ARRAY);
            put_u32(out, STRING);
            put_u64(out, v.len());
            v.iter().for_each(|s| put_string(out, s));
        }
        Entry::Floats(v) => {
            put_u32(out, ARRAY);
            put_u32(out, 6);
            put_u64(out, v.len());
            v.iter().for_each(|f| out.extend_from_slice(&f.to_le_bytes()));
        }
        Entry::Copied(value) => put_value(out, value),
        Entry::Ints(v) => {
            put_u32(out, ARRAY);
            put_u32(out, 5);
            put_u64(out, v.len());
            v.iter().for_each(|i| out.extend_from_slice(&i.to_le_bytes()));
        }
    }
}
