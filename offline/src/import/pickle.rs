//! The part of Python's pickle language that builds state dicts; nothing is ever called.
//!
//! Values live in a heap and refer to each other by index, so shared and even circular structures
//! cost no more than the bytes that made them.
//!
//! Source: `CPython`'s `pickletools`, protocols 2 to 4; `torch.save`'s persistent ids.

use super::Problem;
use std::collections::HashMap;

/// Longer programs than this are refused: a published state dict needs about 0.1 MB.
pub const MOST_BYTES: usize = 16 << 20;
/// Values a program may make.
const MOST_VALUES: usize = 2 << 20;
/// Axes of a tensor.
const MOST_AXES: usize = 8;
/// Elements of a tensor or storage.
const MOST_ELEMENTS: usize = 1 << 30;

/// Index of a value.
pub type Handle = usize;

/// What a program can make.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// One of the few names from Python modules that mean something here.
    Global(Global),
    /// A tuple.
    Tuple(Vec<Handle>),
    /// A list.
    List(Vec<Handle>),
    /// A dict or `OrderedDict`, in order of insertion.
    Dict(Vec<(Handle, Handle)>),
    /// The raw array behind tensors.
    Storage(Storage),
    /// A view of a storage.
    Tensor(TensorRef),
    /// Something beside the tensors that is passed over: a NumPy scalar, a device, settings.
    Inert,
}

/// The names that are understood. Every other is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`, around one of the two.
    RebuildTyped,
    /// `torch.Size`
    Size,
    /// `collections.defaultdict`
    DefaultDict,
    /// `torch.FloatStorage` and its like.
    StorageOf(Element),
    /// A name whose values are passed over.
    Inert,
}

/// Type of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// f64
    F64,
    /// f32
    F32,
    /// IEEE half precision
    F16,
    /// The upper half of f32
    Bf16,
    /// i64
    I64,
    /// i32
    I32,
    /// i16
    I16,
    /// i8
    I8,
    /// u8
    U8,
    /// One byte, 0 or 1
    Bool,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A raw array in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Its name.
    pub key: String,
    /// Its elements.
    pub element: Element,
    /// How many.
    pub length: usize,
}

/// A tensor: a strided view of a storage, which it does not leave.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorRef {
    /// What it shows.
    pub storage: Storage,
    /// First element.
    pub offset: usize,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Elements between neighbours along each axis.
    pub stride: Vec<usize>,
}

/// Everything a program made.
#[derive(Debug, Default)]
pub struct Heap(Vec<Value>);

impl Heap {
    /// One value.
    pub fn get(&self, handle: Handle) -> &Value {
        &self.0[handle]
    }

    /// All values.
    pub fn values(&self) -> &[Value] {
        &self.0
    }

    fn add(&mut self, value: Value) -> Result<Handle, Problem> {
        if self.0.len() >= MOST_VALUES {
            return refused(format!("more than {MOST_VALUES} values"));
        }
        self.0.push(value);
        Ok(self.0.len() - 1)
    }
}

/// What a program left: all values, the result, and how many bytes it took.
#[derive(Debug)]
pub struct Loaded {
    /// All values.
    pub heap: Heap,
    /// The result.
    pub root: Handle,
    /// Bytes up to and with the program's end.
    pub length: usize,
}

/// Runs the program at the start of `bytes`.
///
/// # Errors
/// [`Problem::Damaged`] when it ends early or contradicts itself, [`Problem::Refused`] when it
/// uses an instruction or a name that state dicts don't need.
pub fn load(bytes: &[u8]) -> Result<Loaded, Problem> {
    let mut machine = Machine {
        bytes: &bytes[..bytes.len().min(MOST_BYTES)],
        at: 0,
        heap: Heap::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        if let Some(root) = machine.step()? {
            return Ok(Loaded {
                heap: machine.heap,
                root,
                length: machine.at,
            });
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    heap: Heap,
    stack: Vec<Handle>,
    marks: Vec<usize>,
    memo: HashMap<usize, Handle>,
}

impl Machine<'_> {
    /// Runs one instruction; the result when it was the last.
    fn step(&mut self) -> Result<Option<Handle>, Problem> {
        let at = self.at;
        match self.byte()? {
            0x80 => {
                let protocol = self.byte()?;
                if !(2..=5).contains(&protocol) {
                    return refused(format!("pickle protocol {protocol}"));
                }
            }
            // A frame says how many bytes follow, which we don't need.
            0x95 => self.take(8).map(|_| ())?,
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop().map(|_| ())?,
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = self.number(2)?;
                self.push(Value::Int(value.into()))?;
            }
            b'J' => {
                let value = self.number(4)? as u32 as i32;
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let length = self.byte()?.into();
                let value = signed(self.take(length)?)?;
                self.push(Value::Int(value))?;
            }
            b'G' => {
                let bytes = self.take(8)?;
                let bytes = bytes
                    .iter()
                    .fold(0, |all, byte| all << 8 | u64::from(*byte));
                self.push(Value::Float(f64::from_bits(bytes)))?;
            }
            b'X' => self.text(4)?,
            0x8c | b'U' => self.text(1)?,
            b'T' => self.text(4)?,
            0x8d => self.text(8)?,
            // Bytes, and sets with their items: never tensors.
            b'C' => self.passed_over(1)?,
            b'B' => self.passed_over(4)?,
            0x8e | 0x96 => self.passed_over(8)?,
            0x8f => self.push(Value::Inert)?,
            0x90 => {
                self.pop_mark()?;
                self.inert(at)?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Inert)?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items))?;
            }
            op @ 0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(op - 0x84));
                let from = from.ok_or_else(|| damaged_at("the stack is empty", at))?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.list(at)?.push(item);
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.list(at)?.extend(items);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict(at)?.push((key, value));
            }
            b'u' => {
                let items = self.pop_mark()?;
                let (pairs, rest) = items.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(damaged_at("a key without a value", at));
                }
                self.dict(at)?
                    .extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            b'q' => {
                let key = self.byte()?.into();
                self.remember(key)?;
            }
            b'r' => {
                let key = self.number(4)? as usize;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)?;
            }
            b'j' => {
                let key = self.number(4)? as usize;
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = global(&module, &name)?;
                self.push(Value::Global(global))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) =
                    (self.heap.get(module), self.heap.get(name))
                else {
                    return Err(damaged_at("a global without a name", at));
                };
                let global = global(module, name)?;
                self.push(Value::Global(global))?;
            }
            b'R' => self.call(at)?,
            b'Q' => self.persistent(at)?,
            // Attributes of an OrderedDict: `_metadata` of a state dict, which holds versions.
            b'b' => {
                self.pop()?;
                if *self.top(at)? != Value::Inert {
                    self.dict(at)?;
                }
            }
            0x81 => {
                let (_, class) = (self.pop()?, self.pop()?);
                if *self.heap.get(class) != Value::Global(Global::Inert) {
                    return refused(format!("pickle instruction 0x81 at byte {at}"));
                }
                self.push(Value::Inert)?;
            }
            op => return refused(format!("pickle instruction {op:#04x} at byte {at}")),
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Result<&[u8], Problem> {
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| damaged_at("the pickle ends early", self.at))?;
        let found = &self.bytes[self.at..end];
        self.at = end;
        Ok(found)
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned little-endian number of at most eight bytes.
    fn number(&mut self, bytes: usize) -> Result<u64, Problem> {
        let bytes = self.take(bytes)?.iter().rev();
        Ok(bytes.fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), Problem> {
        let length = self.number(length_bytes)? as usize;
        let text = std::str::from_utf8(self.take(length)?).map(str::to_string);
        let text = text.map_err(|_| damaged_at("a text that is not UTF-8", self.at))?;
        self.push(Value::Text(text))
    }

    /// Bytes whose length stands before them.
    fn passed_over(&mut self, length_bytes: usize) -> Result<(), Problem> {
        let length = self.number(length_bytes)? as usize;
        self.take(length)?;
        self.push(Value::Inert)
    }

    fn inert(&mut self, at: usize) -> Result<(), Problem> {
        match self.top(at)? {
            Value::Inert => Ok(()),
            _ => Err(damaged_at("an item for something that is no set", at)),
        }
    }

    fn line(&mut self) -> Result<String, Problem> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(256).position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| damaged_at("a name without an end", self.at))?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn push(&mut self, value: Value) -> Result<(), Problem> {
        let handle = self.heap.add(value)?;
        self.stack.push(handle);
        Ok(())
    }

    fn pop(&mut self) -> Result<Handle, Problem> {
        let handle = self.stack.pop();
        handle.ok_or_else(|| damaged_at("the stack is empty", self.at))
    }

    fn pop_mark(&mut self) -> Result<Vec<Handle>, Problem> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        let mark = mark.ok_or_else(|| damaged_at("no mark", self.at))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self, at: usize) -> Result<&mut Value, Problem> {
        let top = self.stack.last();
        let top = *top.ok_or_else(|| damaged_at("the stack is empty", at))?;
        Ok(&mut self.heap.0[top])
    }

    fn list(&mut self, at: usize) -> Result<&mut Vec<Handle>, Problem> {
        match self.top(at)? {
            Value::List(list) => Ok(list),
            _ => Err(damaged_at("an item for something that is no list", at)),
        }
    }

    fn dict(&mut self, at: usize) -> Result<&mut Vec<(Handle, Handle)>, Problem> {
        match self.top(at)? {
            Value::Dict(dict) => Ok(dict),
            _ => refused(format!("attributes or items of an object at byte {at}")),
        }
    }

    fn remember(&mut self, key: usize) -> Result<(), Problem> {
        let top = self.stack.last().copied();
        let top = top.ok_or_else(|| damaged_at("the stack is empty", self.at))?;
        if self.memo.len() >= MOST_VALUES {
            return refused(format!("more than {MOST_VALUES} remembered values"));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<(), Problem> {
        let handle = self.memo.get(&key);
        let handle = handle.ok_or_else(|| damaged_at("nothing remembered under a key", self.at))?;
        self.stack.push(*handle);
        Ok(())
    }

    /// A function call. Ours are a few, and none of them runs anything.
    fn call(&mut self, at: usize) -> Result<(), Problem> {
        let (arguments, mut function) = (self.pop()?, self.pop()?);
        let Value::Tuple(mut arguments) = self.heap.get(arguments).clone() else {
            return Err(damaged_at("a call without arguments", at));
        };
        if let (Value::Global(Global::RebuildTyped), [inner, _, given, ..]) =
            (self.heap.get(function), arguments.as_slice())
            && let Value::Tuple(given) = self.heap.get(*given)
        {
            (function, arguments) = (*inner, given.clone());
        }
        let value = match (self.heap.get(function), arguments.as_slice()) {
            (Value::Global(Global::OrderedDict), []) => Value::Dict(Vec::new()),
            (Value::Global(Global::RebuildTensor), [storage, offset, shape, stride, ..]) => {
                Value::Tensor(self.tensor(*storage, *offset, *shape, *stride)?)
            }
            (Value::Global(Global::RebuildParameter), [data, ..]) => {
                self.stack.push(*data);
                return Ok(());
            }
            (Value::Global(Global::Size), [axes]) => {
                self.stack.push(*axes);
                return Ok(());
            }
            (Value::Global(Global::DefaultDict), _) => Value::Dict(Vec::new()),
            (Value::Global(Global::Inert), _) => Value::Inert,
            _ => return refused(format!("a call at byte {at}")),
        };
        self.push(value)
    }

    fn tensor(
        &self,
        storage: Handle,
        offset: Handle,
        shape: Handle,
        stride: Handle,
    ) -> Result<TensorRef, Problem> {
        let Value::Storage(storage) = self.heap.get(storage) else {
            return Err(damaged_at("a tensor without a storage", self.at));
        };
        let offset = self.size(offset)?;
        let (shape, stride) = (self.sizes(shape)?, self.sizes(stride)?);
        let elements = shape
            .iter()
            .try_fold(1usize, |all, axis| all.checked_mul(*axis));
        let last = shape
            .iter()
            .zip(&stride)
            .try_fold(offset, |last, (axis, stride)| {
                axis.saturating_sub(1)
                    .checked_mul(*stride)?
                    .checked_add(last)
            });
        let (Some(elements), Some(last)) = (elements, last) else {
            return Err(damaged_at("a tensor of impossible size", self.at));
        };
        let fits = elements == 0 || last < storage.length;
        if !fits || elements > MOST_ELEMENTS || shape.len() != stride.len() {
            let what = format!(
                "a tensor {shape:?} with strides {stride:?} from {offset} leaves its storage of {} elements",
                storage.length
            );
            return Err(Problem::Damaged(what));
        }
        Ok(TensorRef {
            storage: storage.clone(),
            offset,
            shape,
            stride,
        })
    }

    /// `("storage", type, key, device, length)`, in the legacy format with a view behind.
    fn persistent(&mut self, at: usize) -> Result<(), Problem> {
        let id = self.pop()?;
        let Value::Tuple(id) = self.heap.get(id) else {
            return refused(format!("a persistent id at byte {at} that is no storage"));
        };
        let get = |index: usize| id.get(index).map(|handle| self.heap.get(*handle));
        let (Some(Value::Text(kind)), Some(Value::Global(Global::StorageOf(element)))) =
            (get(0), get(1))
        else {
            return refused(format!("a persistent id at byte {at} that is no storage"));
        };
        let Some(Value::Text(key)) = get(2) else {
            return refused(format!("a storage at byte {at} without a name"));
        };
        if kind != "storage" || !matches!(get(5), None | Some(Value::None)) {
            return refused(format!(
                "a {kind:?} at byte {at} that is not a whole storage"
            ));
        }
        let length = id.get(4).copied();
        let length =
            self.size(length.ok_or_else(|| damaged_at("a storage without length", at))?)?;
        if length > MOST_ELEMENTS {
            return refused(format!("a storage of {length} elements"));
        }
        let storage = Storage {
            key: key.clone(),
            element: *element,
            length,
        };
        self.push(Value::Storage(storage))
    }

    fn size(&self, handle: Handle) -> Result<usize, Problem> {
        match self.heap.get(handle) {
            Value::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        }
        .ok_or_else(|| damaged_at("a size that is none", self.at))
    }

    fn sizes(&self, handle: Handle) -> Result<Vec<usize>, Problem> {
        match self.heap.get(handle) {
            Value::Tuple(axes) | Value::List(axes) if axes.len() <= MOST_AXES => {
                axes.iter().map(|axis| self.size(*axis)).collect()
            }
            _ => Err(damaged_at("a shape that is none", self.at)),
        }
    }
}

/// A signed little-endian number, as long as it fits.
fn signed(bytes: &[u8]) -> Result<i128, Problem> {
    if bytes.len() > 16 {
        return refused(format!("an integer of {} bytes", bytes.len()));
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 16];
    all[..bytes.len()].copy_from_slice(bytes);
    Ok(i128::from_le_bytes(all))
}

/// The allow-list.
fn global(module: &str, name: &str) -> Result<Global, Problem> {
    let element = |name| {
        Some(match name {
            "DoubleStorage" => Element::F64,
            "FloatStorage" => Element::F32,
            "HalfStorage" => Element::F16,
            "BFloat16Storage" => Element::Bf16,
            "LongStorage" => Element::I64,
            "IntStorage" => Element::I32,
            "ShortStorage" => Element::I16,
            "CharStorage" => Element::I8,
            "ByteStorage" => Element::U8,
            "BoolStorage" => Element::Bool,
            _ => return None,
        })
    };
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
        ("collections", "defaultdict") => Ok(Global::DefaultDict),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Ok(Global::RebuildParameter)
        }
        ("torch._tensor", "_rebuild_from_type_v2") => Ok(Global::RebuildTyped),
        ("torch", "Size") => Ok(Global::Size),
        ("torch", name) if element(name).is_some() => {
            Ok(element(name).map_or(Global::OrderedDict, Global::StorageOf))
        }
        _ if is_inert(module, name) => Ok(Global::Inert),
        _ => refused(format!("the name {module}.{name}")),
    }
}

/// What training checkpoints hold beside tensors: scalars, types, settings. Values of these names are passed
/// over, whatever they are called with.
fn is_inert(module: &str, name: &str) -> bool {
    match module {
        "torch" => matches!(
            name,
            "device"
                | "Tensor"
                | "dtype"
                | "strided"
                | "float64"
                | "float32"
                | "float16"
                | "bfloat16"
                | "int64"
                | "int32"
                | "int16"
                | "int8"
                | "uint8"
                | "bool"
        ),
        "torch.nn.parameter" => matches!(name, "Parameter" | "Buffer"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => {
            matches!(name, "scalar" | "_reconstruct")
        }
        "numpy" => matches!(
            name,
            "dtype" | "ndarray" | "float64" | "float32" | "int64" | "int32" | "bool_"
        ),
        // Where NumPy's own classes of types live.
        "numpy.dtypes" => true,
        "_codecs" => name == "encode",
        "builtins" | "__builtin__" => matches!(
            name,
            "list"
                | "dict"
                | "set"
                | "frozenset"
                | "int"
                // What protocol 2 calls int.
                | "long"
                | "float"
                | "bool"
                | "str"
                | "bytes"
                | "bytearray"
                | "complex"
                | "slice"
                | "range"
                | "object"
                | "tuple"
        ),
        "copyreg" | "copy_reg" => name == "_reconstructor",
        "argparse" => name == "Namespace",
        "types" => name == "SimpleNamespace",
        "datetime" => matches!(name, "datetime" | "date" | "timedelta"),
        "collections" => matches!(name, "Counter" | "deque"),
        _ => module.starts_with("pathlib"),
    }
}

fn refused<T>(what: String) -> Result<T, Problem> {
    Err(Problem::Refused(format!("it uses {what}")))
}

fn damaged_at(what: &str, at: usize) -> Problem {
    Problem::Damaged(format!("{what} (byte {at})"))
}
