//! The rows of a matrix on their way to a device: those of one tensor, or of several in a stack.

use super::tensor::TensorRef;
use crate::Result;
use galley_backend::{BlockFormat, RowCodes, WeightRows};
use half::f16;
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Tensors with rows of one length, stacked to a matrix. Each tensor keeps its format. Rows are
/// checked as they are read.
#[derive(Debug)]
pub(crate) struct MatrixRows<'a> {
    parts: Vec<TensorRef<'a>>,
    /// The first row with a defect that was read; `usize::MAX` without one.
    first_defective: AtomicUsize,
}

impl<'a> MatrixRows<'a> {
    /// The rows of `parts`, in this order.
    pub(crate) fn new(parts: Vec<TensorRef<'a>>) -> Self {
        Self { parts, first_defective: AtomicUsize::new(usize::MAX) }
    }

    /// Releases the pages of all tensors, after the device has read them.
    ///
    /// # Errors
    ///
    /// If a row was read with a scale or minimum that is not a finite number.
    pub(crate) fn finish(&self) -> Result<()> {
        let row = self.first_defective.load(Relaxed);
        let defect = self.part(row).and_then(|(part, row)| part.defect(row));
        self.parts.iter().for_each(TensorRef::release);
        defect.map_or(Ok(()), Err)
    }

    /// The tensor with row `row` of the matrix, and the row's number there; None beyond the last row.
    fn part(&self, mut row: usize) -> Option<(&TensorRef<'a>, usize)> {
        for part in &self.parts {
            match row.checked_sub(part.rows()) {
                None => return Some((part, row)),
                Some(rest) => row = rest,
            }
        }
        None
    }

    fn existing(&self, row: usize) -> (&TensorRef<'a>, usize) {
        self.part(row).expect("a row of the matrix")
    }

    /// Notes a row that was read.
    fn note(&self, row: usize, is_sound: bool) {
        if !is_sound {
            self.first_defective.fetch_min(row, Relaxed);
        }
    }
}

/// # Panics
///
/// If there is no such row.
impl WeightRows for MatrixRows<'_> {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        let (part, row_of_part) = self.existing(row);
        part.read_row(row_of_part, out);
        self.note(row, part.defect(row_of_part).is_none());
    }

    fn block_format(&self, row: usize) -> Option<BlockFormat> {
        let (part, row) = self.existing(row);
        part.block_format(row)
    }

    fn read_codes(&self, row: usize, out: &mut RowCodes) {
        let (part, row_of_part) = self.existing(row);
        part.read_codes(row_of_part, out);
        let is_finite = |&bits: &u16| f16::from_bits(bits).is_finite();
        self.note(row, out.scales.iter().chain(&out.mins).all(is_finite));
    }

    fn release(&self, rows: Range<usize>) {
        let mut start = 0;
        for part in &self.parts {
            let within = |row: usize| row.saturating_sub(start).min(part.rows());
            WeightRows::release(part, within(rows.start)..within(rows.end));
            start += part.rows();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{
        codec::Codec,
        mapped::Mapped,
        tensor::{RowOrder, Storage, TensorEntry},
    };
    use std::io::Write;

    const Q8_0: Codec = Codec::Blocks(BlockFormat::Q8_0);
    const Q4_1: Codec = Codec::Blocks(BlockFormat::Q4_1);

    /// A file of two rows of Q8_0, one row of f32, and four rows of Q4_1. The first code of each row is
    /// the number of the row.
    fn file(scale_of_row_5: u16) -> (tempfile::NamedTempFile, Mapped) {
        let mut bytes = Vec::new();
        for row in 0..7_u8 {
            let scale = if row == 5 { scale_of_row_5 } else { 0x3c00 };
            match row {
                0 | 1 => bytes.extend([&scale.to_le_bytes()[..], &[row; 32]].concat()),
                2 => bytes.extend(f32::from(row).to_le_bytes().repeat(32)),
                _ => bytes.extend([&scale.to_le_bytes()[..], &[0; 2], &[row; 16]].concat()),
            }
        }
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&bytes).expect("written");
        let mapped = Mapped::open(file.path()).expect("mapped");
        (file, mapped)
    }

    fn rows(file: &Mapped) -> MatrixRows<'_> {
        let part = |name, codec: Codec, offset: usize, rows: usize, order| {
            let shape = vec![rows, 32];
            let len = codec.tensor_bytes(&shape).expect("a size");
            let entry = TensorEntry { file: 0, offset, len, storage: Storage::Codec(codec), shape };
            TensorRef::new(file, name, &entry, codec, order)
        };
        MatrixRows::new(vec![
            part("a", Q8_0, 0, 2, RowOrder::Plain),
            part("b", Codec::F32, 68, 1, RowOrder::Plain),
            part("c", Q4_1, 68 + 128, 4, RowOrder::Interleaved { head_dim: 4 }),
        ])
    }

    #[test]
    fn a_stack_has_the_rows_and_formats_of_its_parts() {
        let (_file, mapped) = file(0x3c00);
        let rows = rows(&mapped);
        let formats: Vec<_> = (0..7).map(|row| rows.block_format(row)).collect();
        let [a, c] = [Some(BlockFormat::Q8_0), Some(BlockFormat::Q4_1)];
        assert_eq!(formats, [a, a, None, c, c, c, c]);
        let mut values = [0.0; 32];
        // Rows of the last part are stored in the order 0 2 1 3.
        for (row, stored) in [0.0, 1.0, 2.0, 3.0, 5.0, 4.0, 6.0].into_iter().enumerate() {
            rows.read_row(row, &mut values);
            assert_eq!(values[0], stored, "row {row}");
            if let Some(format) = rows.block_format(row) {
                let mut codes = RowCodes::new(format, 32);
                rows.read_codes(row, &mut codes);
                let zero = if format == BlockFormat::Q8_0 { 128.0 } else { 0.0 };
                assert_eq!(f32::from(codes.codes[0]) - zero, stored, "row {row}");
                assert_eq!(codes.scales, [0x3c00], "row {row}");
            }
        }
        WeightRows::release(&rows, 1..5);
        rows.read_row(1, &mut values);
        assert_eq!(values[0], 1.0, "released rows are read again");
        rows.finish().expect("sound rows");
    }

    #[test]
    fn a_defect_is_an_error_once_its_row_is_read() {
        let (_file, mapped) = file(0x7c00);
        let read_values = |rows: &MatrixRows<'_>, row| rows.read_row(row, &mut [0.0; 32]);
        let read_codes = |rows: &MatrixRows<'_>, row| {
            rows.read_codes(row, &mut RowCodes::new(BlockFormat::Q4_1, 32));
        };
        for read in [&read_values as &dyn Fn(&MatrixRows<'_>, usize), &read_codes] {
            let rows = rows(&mapped);
            for row in [3, 5, 6] {
                read(&rows, row);
            }
            rows.finish().expect("row 5 of the file is row 4 of the matrix");
            read(&rows, 4);
            let error = rows.finish().expect_err("a defect").to_string();
            assert!(error.ends_with(": c: the scale of block 0 of row 2 is inf"), "{error}");
        }
    }
}
