//! One tensor of a checkpoint, read row by row.

use super::{codec::Codec, mapped::Mapped, quant};
use crate::ModelError;
use galley_backend::{BlockFormat, RowCodes, WeightRows};
use std::ops::Range;

/// A tensor in the header of a file. Place and size are checked, except with [`Storage::Broken`].
#[derive(Debug)]
pub(super) struct TensorEntry {
    /// Index of the file within the checkpoint.
    pub(super) file: usize,
    /// Offset of the first byte in the file.
    pub(super) offset: usize,
    /// Length in bytes.
    pub(super) len: usize,
    pub(super) storage: Storage,
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
}

/// Storage of a tensor.
#[derive(Debug)]
pub(super) enum Storage {
    /// A format that Galley reads.
    Codec(Codec),
    /// Another format, by its name.
    Other(String),
    /// The header's entry is impossible, for this reason.
    Broken(String),
}

/// A tensor in a mapped file: rows of numbers in some storage format.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    file: &'a Mapped,
    /// The name in the file.
    name: &'a str,
    offset: usize,
    len: usize,
    codec: Codec,
    rows: usize,
    cols: usize,
    order: RowOrder,
}

/// The order of a tensor's rows in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// Row `r` of the model is row `r` in the file.
    Plain,
    /// Rows of each head are interleaved: llama.cpp's converter stores the rows that the rotary
    /// embedding pairs, `i` and `i + head_dim / 2`, next to each other.
    Interleaved { head_dim: usize },
}

impl<'a> TensorRef<'a> {
    /// The tensor `name` in `file`; a vector is one row, more than two dimensions are many rows.
    ///
    /// With [`RowOrder::Interleaved`] the outermost dimension must be a multiple of an even
    /// `head_dim`.
    pub(super) fn new(
        file: &'a Mapped,
        name: &'a str,
        entry: &TensorEntry,
        codec: Codec,
        order: RowOrder,
    ) -> TensorRef<'a> {
        let (cols, outer) = entry.shape.split_last().map_or((1, &[][..]), |(&n, outer)| (n, outer));
        // Outermost first, as in the size check: after a zero, any dimension is valid.
        let rows = outer.iter().product();
        TensorRef { file, name, offset: entry.offset, len: entry.len, codec, rows, cols, order }
    }

    /// Number of rows; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of values in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Storage format of the values.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Reads one row.
    ///
    /// # Panics
    ///
    /// If there is no such row or `out` is not [`Self::cols`] long.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "values of a row");
        match self.order {
            RowOrder::Interleaved { head_dim } if self.rows == 1 => {
                let mut stored = vec![0.0; self.cols];
                self.codec.decode(self.row_bytes(row), &mut stored);
                for (i, value) in out.iter_mut().enumerate() {
                    *value = stored[interleaved(i, head_dim)];
                }
            }
            _ => self.codec.decode(self.row_bytes(row), out),
        }
    }

    /// The error about a scale or minimum in row `row` that is not a finite number; None for a sound
    /// row and for floats.
    pub(super) fn defect(&self, row: usize) -> Option<ModelError> {
        let defect = quant::first_defect(self.codec.block_format()?, self.row_bytes(row))?;
        let quant::BlockDefect { block, field, value } = defect;
        let row = self.stored_row(row);
        let reason = format!("the {field} of block {block} of row {row} is {value}");
        Some(ModelError::invalid(self.file.path(), self.name, reason))
    }

    /// Tells the operating system that the tensor's pages are no longer needed, so that loading
    /// does not keep the file in memory beside the packed weights. Reading again is allowed, and
    /// reads from the file.
    pub fn release(&self) {
        self.file.release(self.offset..self.offset + self.len);
    }

    /// The bytes of row `row`.
    fn row_bytes(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let len = self.row_len();
        &self.file.bytes()[self.offset..][..self.len][self.stored_row(row) * len..][..len]
    }

    /// Length of a row in bytes.
    fn row_len(&self) -> usize {
        self.cols / self.codec.block_len() * self.codec.block_bytes()
    }

    /// The place of row `row` in the file.
    fn stored_row(&self, row: usize) -> usize {
        match self.order {
            RowOrder::Interleaved { head_dim } if self.rows > 1 => interleaved(row, head_dim),
            _ => row,
        }
    }
}

impl WeightRows for TensorRef<'_> {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        TensorRef::read_row(self, row, out);
    }

    /// None for a vector whose values are reordered too.
    fn block_format(&self, _row: usize) -> Option<BlockFormat> {
        match self.order {
            RowOrder::Interleaved { .. } if self.rows == 1 => None,
            _ => self.codec.block_format(),
        }
    }

    /// # Panics
    ///
    /// If there is no such row, or if `out` has another length or format.
    fn read_codes(&self, row: usize, out: &mut RowCodes) {
        let format = self.block_format(row).expect("a row of blocks");
        assert_eq!(out.codes.len(), self.cols, "codes of a row");
        quant::read_codes(format, self.row_bytes(row), out);
    }

    /// Rows in the order of the file are released at once, others with the tensor
    /// ([`TensorRef::release`]).
    fn release(&self, rows: Range<usize>) {
        if self.order == RowOrder::Plain {
            let end = rows.end.min(self.rows);
            let at = |row: usize| self.offset + row * self.row_len();
            self.file.release(at(rows.start.min(end))..at(end));
        }
    }
}

/// Where llama.cpp's `permute` puts row `index`: within a head, `half · head_dim/2 + i` goes to
/// `2i + half`.
fn interleaved(index: usize, head_dim: usize) -> usize {
    let (head, within) = (index / head_dim, index % head_dim);
    let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * i + half
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn tensors_may_be_read_from_many_threads() {
        fn assert_sync<T: Send + Sync>() {}
        assert_sync::<TensorRef<'_>>();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn released_pages_are_no_longer_resident() {
        fn resident_kib() -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            // The kernel counts pages of a file in tmpfs as shared memory.
            let mapped =
                |line: &&str| line.starts_with("RssFile:") || line.starts_with("RssShmem:");
            let kib =
                |line: &str| line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap();
            status.lines().filter(mapped).map(kib).sum()
        }

        let (rows, cols) = (1024, 8192);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![1; rows * cols * 4]).unwrap();
        let mapped = Mapped::open(file.path()).unwrap();
        let entry = TensorEntry {
            file: 0,
            offset: 0,
            len: rows * cols * 4,
            storage: Storage::Codec(Codec::F32),
            shape: vec![rows, cols],
        };
        let tensor = TensorRef::new(&mapped, "tensor", &entry, Codec::F32, RowOrder::Plain);
        let mut out = vec![0.0; cols];
        (0..rows).for_each(|row| tensor.read_row(row, &mut out));
        let read = resident_kib();
        tensor.release();
        let released = resident_kib();
        assert!(released + 30_000 < read, "{read} KiB resident, {released} after release");
        tensor.read_row(rows - 1, &mut out);
        assert_eq!(out[cols - 1].to_bits(), 0x0101_0101);
    }

    /// As `weights.reshape(n_head, 2, head_dim / 2).swapaxes(1, 2)` in convert_hf_to_gguf.py.
    #[test]
    fn interleaving_is_llama_cpps() {
        let order: Vec<usize> = (0..12).map(|i| interleaved(i, 6)).collect();
        assert_eq!(order, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn interleaved_rows_and_vectors_come_out_in_order() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        // A head of 4 rows, stored in the order 0 2 1 3.
        let values = [0.0_f32, 2.0, 1.0, 3.0];
        file.write_all(&values.map(f32::to_le_bytes).concat()).unwrap();
        let mapped = Mapped::open(file.path()).unwrap();
        let order = RowOrder::Interleaved { head_dim: 4 };
        let entry = |shape: &[usize]| TensorEntry {
            file: 0,
            offset: 0,
            len: 16,
            storage: Storage::Codec(Codec::F32),
            shape: shape.to_vec(),
        };

        let vector = TensorRef::new(&mapped, "tensor", &entry(&[4]), Codec::F32, order);
        let mut out = [0.0; 4];
        vector.read_row(0, &mut out);
        assert_eq!(out, [0.0, 1.0, 2.0, 3.0]);

        let matrix = TensorRef::new(&mapped, "tensor", &entry(&[4, 1]), Codec::F32, order);
        matrix.release();
        for row in 0..4 {
            let mut out = [0.0];
            matrix.read_row(row, &mut out);
            assert_eq!(out, [row as f32]);
        }
    }
}
