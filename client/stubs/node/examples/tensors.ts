// Packs and unpacks the contract's tensors, and compares them.

/** float32, little endian, whatever the machine is. */
export function packF32(values: Float32Array): Buffer {
  const data = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => data.writeFloatLE(value, 4 * i));
  return data;
}

export function unpackF32(data: Buffer): Float32Array {
  return Float32Array.from({ length: data.length / 4 }, (_, i) => data.readFloatLE(4 * i));
}

/** The upper half of each float32, rounded to nearest, ties to even; little endian. */
export function packBf16(values: Float32Array): Buffer {
  const wide = packF32(values);
  const data = Buffer.alloc(2 * values.length);
  values.forEach((value, i) => {
    const bits = wide.readUInt32LE(4 * i);
    // Rounding would carry a NaN with few bits into an infinity.
    const rounded = Number.isNaN(value) ? bits | 0x400000 : bits + 0x7fff + ((bits >>> 16) & 1);
    data.writeUInt16LE(rounded >>> 16, 2 * i);
  });
  return data;
}

export function unpackBf16(data: Buffer): Float32Array {
  const wide = Buffer.alloc(2 * data.length);
  for (let i = 0; i < data.length / 2; ++i) {
    wide.writeUInt16LE(data.readUInt16LE(2 * i), 4 * i + 2);
  }
  return unpackF32(wide);
}

/** Norm of the difference over norm of the expected row, of the worst token. */
export function worstError(actual: Float32Array, expected: Float32Array, dModel: number) {
  let worst = { token: 0, error: 0 };
  for (let token = 0; token < expected.length / dModel; ++token) {
    let difference = 0;
    let norm = 0;
    for (let i = token * dModel; i < (token + 1) * dModel; ++i) {
      difference += (actual[i] - expected[i]) ** 2;
      norm += expected[i] ** 2;
    }
    const error = Math.sqrt(difference / norm);
    if (Number.isNaN(error)) {
      return { token, error };
    }
    if (error > worst.error) {
      worst = { token, error };
    }
  }
  return worst;
}
