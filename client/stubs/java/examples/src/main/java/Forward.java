import dev.expertmesh.v1.Dtype;
import dev.expertmesh.v1.DescribeModelRequest;
import dev.expertmesh.v1.DescribeModelResponse;
import dev.expertmesh.v1.ForwardRequest;
import dev.expertmesh.v1.RouterGrpc;
import dev.expertmesh.v1.Tensor;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.TimeUnit;

/**
 * Calls a router through generated Java stubs, and compares its answers with golden ones.
 *
 * <pre>Forward ROUTER GOLDEN_DIR</pre>
 */
public final class Forward {
  private static final long SECONDS = 30;

  private record Case(Dtype sent, Dtype answered, String name, double tolerance) {}

  private final RouterGrpc.RouterBlockingStub router;

  private Forward(ManagedChannel channel) {
    router = RouterGrpc.newBlockingStub(channel);
  }

  /** A deadline is of one call, not of a stub. */
  private RouterGrpc.RouterBlockingStub router() {
    return router.withDeadlineAfter(SECONDS, TimeUnit.SECONDS);
  }

  /** Sends values as one type and returns the answer, asked for as another. */
  private float[] forward(int layer, float[] values, int dModel, Dtype sent, Dtype answered) {
    Tensor hiddenStates =
        Tensor.newBuilder()
            .setDtype(sent)
            .addShape(values.length / dModel)
            .addShape(dModel)
            .setData(sent == Dtype.DTYPE_F32 ? Tensors.packF32(values) : Tensors.packBf16(values))
            .build();
    ForwardRequest request =
        ForwardRequest.newBuilder()
            .setLayer(layer)
            .setOutputDtype(answered)
            .setHiddenStates(hiddenStates)
            .build();
    Tensor output = router().forward(request).getOutput();
    return output.getDtype() == Dtype.DTYPE_F32
        ? Tensors.unpackF32(output.getData())
        : Tensors.unpackBf16(output.getData());
  }

  /** True when every answer is within its tolerance. */
  private boolean run(String address, Path golden) throws IOException {
    DescribeModelResponse model = router().describeModel(DescribeModelRequest.getDefaultInstance());
    int layer = model.getLayers(0).getLayer();
    int dModel = model.getDModel();
    System.out.printf(
        "%s: %s, d_model %d, first MoE layer %d%n", address, model.getFamily(), dModel, layer);

    float[] hiddenStates = Tensors.readF32(golden.resolve("hidden_states.f32"));
    boolean good = true;
    for (Case one :
        List.of(
            new Case(Dtype.DTYPE_F32, Dtype.DTYPE_F32, "output.f32", 1e-5),
            new Case(Dtype.DTYPE_BF16, Dtype.DTYPE_F32, "output_of_bf16_input.f32", 1e-5),
            new Case(Dtype.DTYPE_BF16, Dtype.DTYPE_BF16, "output_of_bf16_input.f32", 1e-2))) {
      float[] actual = forward(layer, hiddenStates, dModel, one.sent(), one.answered());
      float[] expected = Tensors.readF32(golden.resolve(one.name()));
      if (actual.length != expected.length) {
        throw new IOException(
            String.format(
                "the answer has %d values, %s has %d: does the router serve the golden checkpoint?",
                actual.length, one.name(), expected.length));
      }
      Tensors.Worst worst = Tensors.worstError(actual, expected, dModel);
      boolean within = worst.error() <= one.tolerance();
      System.out.printf(
          Locale.ROOT,
          "%s to %s: error %.2e at token %d, at most %.0e: %s%n",
          one.sent(),
          one.answered(),
          worst.error(),
          worst.token(),
          one.tolerance(),
          within ? "ok" : "TOO LARGE");
      good = good && within;
    }
    return good;
  }

  public static void main(String[] args) {
    if (args.length != 2) {
      System.err.println("usage: Forward ROUTER GOLDEN_DIR");
      System.exit(2);
    }
    // Tensors are larger than gRPC's default limit of 4 MiB for a message received.
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(args[0])
            .usePlaintext()
            .maxInboundMessageSize(Integer.MAX_VALUE)
            .build();
    boolean good = false;
    try {
      good = new Forward(channel).run(args[0], Path.of(args[1]));
    } catch (StatusRuntimeException | IOException error) {
      System.err.println(error.getMessage());
    } finally {
      channel.shutdownNow();
    }
    System.exit(good ? 0 : 1);
  }
}
