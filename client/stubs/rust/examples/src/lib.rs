//! What the examples share: tensors, packed, unpacked and compared.
use std::{fs, io, path::Path};

/// float32, little endian.
pub fn pack_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub fn unpack_f32(data: &[u8]) -> Vec<f32> {
    data.chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect()
}

/// The upper half of each float32, rounded to nearest, ties to even; little endian.
pub fn pack_bf16(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| {
            let bits = value.to_bits();
            // Rounding would carry a NaN with few bits into an infinity.
            let rounded =
                if value.is_nan() { bits | 0x40_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
            ((rounded >> 16) as u16).to_le_bytes()
        })
        .collect()
}

pub fn unpack_bf16(data: &[u8]) -> Vec<f32> {
    data.chunks_exact(2)
        .map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16))
        .collect()
}

pub fn read_f32(folder: &Path, name: &str) -> io::Result<Vec<f32>> {
    Ok(unpack_f32(&fs::read(folder.join(name))?))
}

/// The worst token, and the norm of its difference over the norm of its expected row.
pub fn worst_error(actual: &[f32], expected: &[f32], d_model: usize) -> (usize, f64) {
    let mut worst = (0, 0.0);
    let rows = actual.chunks_exact(d_model).zip(expected.chunks_exact(d_model));
    for (token, (actual, expected)) in rows.enumerate() {
        let (mut difference, mut norm) = (0.0, 0.0);
        for (&a, &e) in actual.iter().zip(expected) {
            difference += (f64::from(a) - f64::from(e)).powi(2);
            norm += f64::from(e).powi(2);
        }
        let error = (difference / norm).sqrt();
        if error.is_nan() {
            return (token, error);
        }
        if error > worst.1 {
            worst = (token, error);
        }
    }
    worst
}
