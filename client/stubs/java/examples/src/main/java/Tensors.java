import com.google.protobuf.ByteString;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;

/** Packs and unpacks the contract's tensors, and compares them. */
final class Tensors {
  /** A token and its error: norm of the difference over norm of the expected row. */
  record Worst(int token, double error) {}

  private Tensors() {}

  private static ByteBuffer littleEndian(int bytes) {
    return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  /** float32, little endian. */
  static ByteString packF32(float[] values) {
    ByteBuffer data = littleEndian(4 * values.length);
    data.asFloatBuffer().put(values);
    return ByteString.copyFrom(data);
  }

  static float[] unpackF32(ByteString data) {
    float[] values = new float[data.size() / 4];
    data.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
    return values;
  }

  /** The upper half of each float32, rounded to nearest, ties to even; little endian. */
  static ByteString packBf16(float[] values) {
    ByteBuffer data = littleEndian(2 * values.length);
    for (float value : values) {
      int bits = Float.floatToRawIntBits(value);
      // Rounding would carry a NaN with few bits into an infinity.
      int rounded = Float.isNaN(value) ? bits | 0x400000 : bits + 0x7fff + (bits >>> 16 & 1);
      data.putShort((short) (rounded >>> 16));
    }
    return ByteString.copyFrom(data.flip());
  }

  static float[] unpackBf16(ByteString data) {
    float[] values = new float[data.size() / 2];
    ByteBuffer halves = data.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < values.length; ++i) {
      values[i] = Float.intBitsToFloat(halves.getShort() << 16);
    }
    return values;
  }

  static float[] readF32(Path file) throws IOException {
    return unpackF32(ByteString.copyFrom(Files.readAllBytes(file)));
  }

  /** Norm of the difference over norm of the expected row, of the worst token. */
  static Worst worstError(float[] actual, float[] expected, int dModel) {
    Worst worst = new Worst(0, 0);
    for (int token = 0; token < expected.length / dModel; ++token) {
      double difference = 0;
      double norm = 0;
      for (int i = token * dModel; i < (token + 1) * dModel; ++i) {
        difference += Math.pow((double) actual[i] - expected[i], 2);
        norm += Math.pow(expected[i], 2);
      }
      double error = Math.sqrt(difference / norm);
      if (Double.isNaN(error)) {
        return new Worst(token, error);
      }
      if (error > worst.error()) {
        worst = new Worst(token, error);
      }
    }
    return worst;
  }
}
