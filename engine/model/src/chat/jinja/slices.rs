//! Slices: `value[start:stop:step]`.

use super::attributes::described;
use super::error::{Result, type_error, value_error};
use super::ops::undefined;
use super::run::Run;
use super::text::char_range;
use super::value::{Value, range_length};

/// `value[start:stop:step]`.
pub(super) fn slice(run: &Run<'_>, value: &Value, bounds: [&Value; 3]) -> Result<Value> {
    let budget = &run.budget;
    match value {
        Value::Undefined(message) => undefined(message),
        Value::List(seq) | Value::Tuple(seq) => {
            let indices = slice_indices(seq.items.len(), bounds)?;
            let items = indices.map(|index| seq.items[index].clone()).collect();
            if matches!(value, Value::List(_)) {
                Value::list(budget, items)
            } else {
                Value::tuple(budget, items)
            }
        }
        Value::Str(text) => {
            let mut indices = slice_indices(text.n_chars, bounds)?;
            budget.scan(text.text.len())?;
            let is_forward = matches!(bounds[2], Value::None | Value::Int(1));
            if is_forward {
                let first = indices.next();
                let Some(first) = first else { return Value::marked(budget, "", text.is_safe) };
                let stop = first + 1 + indices.count();
                let range = char_range(&text.text, first, stop);
                return Value::marked(budget, &text.text[range], text.is_safe);
            }
            let chars: Vec<char> = text.text.chars().collect();
            budget.bytes(chars.len() * size_of::<char>())?;
            Value::marked(
                budget,
                indices.map(|index| chars[index]).collect::<String>(),
                text.is_safe,
            )
        }
        Value::Range(start, stop, step) => {
            let length = range_length(*start, *stop, *step);
            let indices: Vec<usize> = slice_indices(length, bounds)?.collect();
            budget.steps(indices.len())?;
            let at = |index: usize| start + index as i128 * step;
            Ok(match indices[..] {
                [] => Value::Range(0, 0, 1),
                [only] => Value::Range(at(only), at(only) + 1, 1),
                [first, second, ..] => {
                    let step = at(second) - at(first);
                    Value::Range(at(first), at(first) + step * indices.len() as i128, step)
                }
            })
        }
        value => type_error(format!("{} cannot be sliced", described(value))),
    }
}

/// The indices that `[start:stop:step]` selects from a sequence of `length` items.
fn slice_indices(
    length: usize,
    [start, stop, step]: [&Value; 3],
) -> Result<impl Iterator<Item = usize>> {
    let part = |value: &Value| match value {
        Value::None => Ok(None),
        Value::Undefined(_) => {
            type_error("slice indices must be integers or None or have an __index__ method")
        }
        value => match value.as_int() {
            Some(number) => Ok(Some(number)),
            None => {
                type_error("slice indices must be integers or None or have an __index__ method")
            }
        },
    };
    let (start, stop, step) = (part(start)?, part(stop)?, part(step)?.unwrap_or(1));
    if step == 0 {
        return value_error("slice step cannot be zero");
    }
    let length = length as i128;
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |value: i128| {
        let value = if value < 0 { value.saturating_add(length) } else { value };
        value.clamp(lowest, highest)
    };
    let start = start.map_or(if step > 0 { lowest } else { highest }, place);
    let stop = stop.map_or(if step > 0 { highest } else { lowest }, place);
    let step = step.clamp(-length - 1, length + 1);
    let count = range_length(start, stop, step);
    Ok((0..count).map(move |index| (start + index as i128 * step) as usize))
}
