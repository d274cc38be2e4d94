//! Cap'n Proto structs to JSON and back, in the forms of tests/vectors/README.md, by reflection.

use capnp::introspect::TypeVariant;
use capnp::schema::Field;
use capnp::traits::HasTypeId;
use capnp::{any_pointer, dynamic_list, dynamic_struct, dynamic_value, primitive_list};
use serde_json::{json, Map, Value};

use crate::conformance_capnp::{everything, evolving, inner, AnyKind};

#[derive(Debug)]
pub enum Error {
    /// The message is malformed.
    Message(capnp::Error),
    /// The JSON value does not fit the schema.
    Value(String),
}

impl From<capnp::Error> for Error {
    fn from(error: capnp::Error) -> Self {
        Error::Message(error)
    }
}

impl From<std::str::Utf8Error> for Error {
    fn from(error: std::str::Utf8Error) -> Self {
        Error::Message(error.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Message(error) => write!(f, "the message cannot be read: {error}"),
            Error::Value(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

type Result<T> = std::result::Result<T, Error>;

fn misfit<T>(what: &str, value: &Value) -> Result<T> {
    let shown: String = value.to_string().chars().take(100).collect();
    Err(Error::Value(format!("{what} cannot be {shown}")))
}

// --- reading -----------------------------------------------------------------------------------------------

/// Reads every field.
pub fn show(reader: dynamic_struct::Reader<'_>) -> Result<Value> {
    let mut object = Map::new();
    let schema = reader.get_schema();
    for field in schema.get_non_union_fields()?.iter() {
        show_field(reader, field, &mut object)?;
    }
    if !schema.get_union_fields()?.is_empty() {
        match reader.which()? {
            Some(field) => show_field(reader, field, &mut object)?,
            None => {
                object.insert("unknown".to_owned(), json!(unknown_member(reader)));
            }
        }
    }
    Ok(Value::Object(object))
}

fn show_field(reader: dynamic_struct::Reader<'_>, field: Field, object: &mut Map<String, Value>) -> Result<()> {
    let name = field.get_proto().get_name()?.to_str()?;
    let value = match (is_everything(reader), name) {
        // The only field for which null-ness is looked at; its default would be without end.
        (true, "again") if !reader.has(field)? => Value::Null,
        (true, "anything") => show_anything(reader)?,
        _ => show_value(reader.get(field)?)?,
    };
    object.insert(name.to_owned(), value);
    Ok(())
}

fn is_everything(reader: dynamic_struct::Reader<'_>) -> bool {
    reader.get_schema().get_proto().get_id() == everything::Reader::TYPE_ID
}

fn show_anything(reader: dynamic_struct::Reader<'_>) -> Result<Value> {
    let everything: everything::Reader<'_> = reader.downcast::<everything::Owned>();
    let pointer = everything.get_anything();
    Ok(match everything.get_any_kind() {
        Ok(AnyKind::Text) => json!({"text": pointer.get_as::<capnp::text::Reader<'_>>()?.to_str()?}),
        Ok(AnyKind::Data) => json!({"data": hex(pointer.get_as::<capnp::data::Reader<'_>>()?)}),
        Ok(AnyKind::Inner) => {
            let inner: inner::Reader<'_> = pointer.get_as()?;
            json!({"inner": show_value(inner.into())?})
        }
        Ok(AnyKind::U16s) => {
            let list: primitive_list::Reader<'_, u16> = pointer.get_as()?;
            json!({"u16s": list.iter().collect::<Vec<u16>>()})
        }
        Ok(AnyKind::Null) | Err(_) => json!({"null": null}),
    })
}

/// The discriminant that the reflection does not give for members of a later version.
fn unknown_member(reader: dynamic_struct::Reader<'_>) -> Option<u16> {
    macro_rules! member {
        ($($module:path),*) => {{
            $({
                use $module as module;
                if reader.get_schema().get_proto().get_id() == module::Reader::TYPE_ID {
                    return reader.downcast::<module::Owned>().which().err().map(|capnp::NotInSchema(number)| number);
                }
            })*
        }};
    }
    member!(everything, everything::shape, evolving::choice, lahja_capn::wire_capnp::control);
    None
}

pub fn show_value(value: dynamic_value::Reader<'_>) -> Result<Value> {
    use dynamic_value::Reader as R;
    Ok(match value {
        R::Void => Value::Null,
        R::Bool(value) => json!(value),
        R::Int8(value) => json!(value),
        R::Int16(value) => json!(value),
        R::Int32(value) => json!(value),
        R::UInt8(value) => json!(value),
        R::UInt16(value) => json!(value),
        R::UInt32(value) => json!(value),
        R::Int64(value) => json!(value.to_string()),
        R::UInt64(value) => json!(value.to_string()),
        R::Float32(value) => json!(format!("{:08x}", value.to_bits())),
        R::Float64(value) => json!(format!("{:016x}", value.to_bits())),
        R::Enum(value) => match value.get_enumerant()? {
            Some(enumerant) => json!(enumerant.get_proto().get_name()?.to_str()?),
            None => json!(value.get_value()),
        },
        R::Text(value) => json!(value.to_str()?),
        R::Data(value) => json!(hex(value)),
        R::List(list) => Value::Array(list.iter().map(|element| show_value(element?)).collect::<Result<_>>()?),
        R::Struct(value) => show(value)?,
        R::AnyPointer(_) | R::Capability(_) => Value::Null,
    })
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

// --- writing -----------------------------------------------------------------------------------------------

/// Sets the fields that the JSON object has; the others keep their defaults.
pub fn fill(mut builder: dynamic_struct::Builder<'_>, value: &Value) -> Result<()> {
    let Some(object) = value.as_object() else {
        return misfit("a struct", value);
    };
    for (name, value) in object {
        if name == "anything" {
            let kind = fill_anything(builder.reborrow(), value)?;
            if !object.contains_key("anyKind") {
                let field = builder.get_schema().get_field_by_name("anyKind")?;
                set(builder.reborrow(), field, &json!(kind))?;
            }
        } else if name == "again" && value.is_null() {
            continue;
        } else {
            let field = builder.get_schema().get_field_by_name(name)?;
            set(builder.reborrow(), field, value)?;
        }
    }
    Ok(())
}

fn fill_anything(builder: dynamic_struct::Builder<'_>, value: &Value) -> Result<String> {
    let Some((kind, value)) = value.as_object().and_then(|object| object.iter().next()) else {
        return misfit("anything", value);
    };
    let mut pointer: any_pointer::Builder<'_> = builder.init_named("anything")?.downcast();
    match kind.as_str() {
        "null" => {}
        "text" => pointer.set_as(text(value)?)?,
        "data" => pointer.set_as::<capnp::data::Owned>(&data(value)?[..])?,
        "inner" => {
            let inner: dynamic_value::Builder<'_> = pointer.init_as::<inner::Builder<'_>>().into();
            fill(inner.downcast(), value)?;
        }
        "u16s" => {
            let elements = elements(value)?;
            let mut list: primitive_list::Builder<'_, u16> = pointer.initn_as(elements.len() as u32);
            for (k, element) in elements.iter().enumerate() {
                list.set(k as u32, integer(element)?);
            }
        }
        _ => return misfit("a member of anything", &json!(kind)),
    }
    Ok(kind.clone())
}

fn set(mut builder: dynamic_struct::Builder<'_>, field: Field, value: &Value) -> Result<()> {
    match field.get_type().which() {
        TypeVariant::Struct(_) => fill(builder.init(field)?.downcast(), value),
        TypeVariant::List(_) => {
            let list: dynamic_list::Builder<'_> = builder.initn(field, elements(value)?.len() as u32)?.downcast();
            fill_list(list, value)
        }
        variant => with_scalar(variant, value, |value| Ok(builder.set(field, value)?)),
    }
}

fn fill_list(mut list: dynamic_list::Builder<'_>, value: &Value) -> Result<()> {
    for (k, element) in elements(value)?.iter().enumerate() {
        let k = k as u32;
        match list.element_type().which() {
            TypeVariant::Struct(_) => fill(list.reborrow().get(k)?.downcast(), element)?,
            TypeVariant::List(_) => {
                let inner: dynamic_list::Builder<'_> =
                    list.reborrow().init(k, elements(element)?.len() as u32)?.downcast();
                fill_list(inner, element)?;
            }
            variant => with_scalar(variant, element, |value| Ok(list.set(k, value)?))?,
        }
    }
    Ok(())
}

/// Gives the value in the form of its type.
fn with_scalar(
    variant: TypeVariant,
    value: &Value,
    give: impl FnOnce(dynamic_value::Reader<'_>) -> Result<()>,
) -> Result<()> {
    use dynamic_value::Reader as R;
    match variant {
        TypeVariant::Void => give(R::Void),
        TypeVariant::Bool => match value.as_bool() {
            Some(value) => give(R::Bool(value)),
            None => misfit("a Bool", value),
        },
        TypeVariant::Int8 => give(R::Int8(integer(value)?)),
        TypeVariant::Int16 => give(R::Int16(integer(value)?)),
        TypeVariant::Int32 => give(R::Int32(integer(value)?)),
        TypeVariant::Int64 => give(R::Int64(integer(value)?)),
        TypeVariant::UInt8 => give(R::UInt8(integer(value)?)),
        TypeVariant::UInt16 => give(R::UInt16(integer(value)?)),
        TypeVariant::UInt32 => give(R::UInt32(integer(value)?)),
        TypeVariant::UInt64 => give(R::UInt64(integer(value)?)),
        TypeVariant::Float32 => match u32::from_str_radix(text(value)?, 16) {
            Ok(bits) => give(R::Float32(f32::from_bits(bits))),
            Err(_) => misfit("a Float32", value),
        },
        TypeVariant::Float64 => match u64::from_str_radix(text(value)?, 16) {
            Ok(bits) => give(R::Float64(f64::from_bits(bits))),
            Err(_) => misfit("a Float64", value),
        },
        TypeVariant::Enum(raw) => {
            let schema: capnp::schema::EnumSchema = raw.into();
            let mut number = value.as_u64().and_then(|number| u16::try_from(number).ok());
            for enumerant in schema.get_enumerants()?.iter() {
                if Some(enumerant.get_proto().get_name()?.to_str()?) == value.as_str() {
                    number = Some(enumerant.get_ordinal());
                }
            }
            match number {
                Some(number) => give(dynamic_value::Enum::new(number, schema).into()),
                None => misfit("an enum", value),
            }
        }
        TypeVariant::Text => give(R::Text(text(value)?.into())),
        TypeVariant::Data => give(R::Data(&data(value)?)),
        _ => misfit("a field of this type", value),
    }
}

/// A number, or a decimal string.
fn integer<T: TryFrom<i128>>(value: &Value) -> Result<T> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64().map(i128::from).or_else(|| other.as_u64().map(i128::from)),
    };
    match number.and_then(|number: i128| T::try_from(number).ok()) {
        Some(number) => Ok(number),
        None => misfit("an integer of this size", value),
    }
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().map_or_else(|| misfit("a string", value), Ok)
}

fn data(value: &Value) -> Result<Vec<u8>> {
    from_hex(text(value)?).map_or_else(|| misfit("Data", value), Ok)
}

fn elements(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().map_or_else(|| misfit("a list", value), Ok)
}
