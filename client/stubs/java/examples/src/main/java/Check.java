import com.google.protobuf.ByteString;
import com.google.rpc.BadRequest;
import com.google.rpc.Code;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import dev.expertmesh.v1.ControlGrpc;
import dev.expertmesh.v1.DescribeModelRequest;
import dev.expertmesh.v1.DescribeModelResponse;
import dev.expertmesh.v1.Dtype;
import dev.expertmesh.v1.ForwardRequest;
import dev.expertmesh.v1.ForwardResponse;
import dev.expertmesh.v1.RouterGrpc;
import dev.expertmesh.v1.Tensor;
import dev.expertmesh.v1.Topology;
import dev.expertmesh.v1.WatchTopologyRequest;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.StatusProto;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * Checks what Java's gRPC can do with a router: one line for each of the columns.
 *
 * <pre>Check ROUTER GOLDEN_DIR</pre>
 */
public final class Check {
  private static final long SECONDS = 60;
  private static final int BIG_BYTES = 60_000_000;

  private interface Column {
    void run() throws Exception;
  }

  private final ManagedChannel channel;
  private final ByteString hiddenStates;
  private final float[] expected;
  private int layer;
  private int dModel;

  private Check(ManagedChannel channel, Path golden) throws IOException {
    this.channel = channel;
    hiddenStates = ByteString.copyFrom(Files.readAllBytes(golden.resolve("hidden_states.f32")));
    expected = Tensors.readF32(golden.resolve("output.f32"));
  }

  private static void require(boolean condition, String said) {
    if (!condition) {
      throw new IllegalStateException(said);
    }
  }

  /** A deadline is of one call, not of a stub. */
  private static <T extends AbstractStub<T>> T timed(T stub) {
    return stub.withDeadlineAfter(SECONDS, TimeUnit.SECONDS);
  }

  private RouterGrpc.RouterBlockingStub router() {
    return timed(RouterGrpc.newBlockingStub(channel));
  }

  private ForwardRequest request(long id, int layer, ByteString data) {
    Tensor tensor =
        Tensor.newBuilder()
            .setDtype(Dtype.DTYPE_F32)
            .addShape(data.size() / 4 / dModel)
            .addShape(dModel)
            .setData(data)
            .build();
    return ForwardRequest.newBuilder()
        .setRequestId(id)
        .setLayer(layer)
        .setHiddenStates(tensor)
        .build();
  }

  private void requireGolden(ByteString data) {
    float[] actual = Tensors.unpackF32(data);
    require(actual.length == expected.length, actual.length + " values");
    Tensors.Worst worst = Tensors.worstError(actual, expected, dModel);
    require(worst.error() <= 1e-5, "error " + worst.error() + " at token " + worst.token());
  }

  /** Sends requests on one stream and returns all answers. */
  private static <Q, A> List<A> exchange(
      Function<StreamObserver<A>, StreamObserver<Q>> method, List<Q> requests) throws Exception {
    List<A> answers = new ArrayList<>();
    CompletableFuture<List<A>> done = new CompletableFuture<>();
    StreamObserver<Q> out =
        method.apply(
            new StreamObserver<>() {
              @Override
              public void onNext(A answer) {
                answers.add(answer);
              }

              @Override
              public void onError(Throwable error) {
                done.completeExceptionally(error);
              }

              @Override
              public void onCompleted() {
                done.complete(answers);
              }
            });
    requests.forEach(out::onNext);
    out.onCompleted();
    return done.get();
  }

  private List<ForwardResponse> forwardStream(ForwardRequest... requests) throws Exception {
    return exchange(timed(RouterGrpc.newStub(channel))::forwardStream, List.of(requests));
  }

  private void unary() {
    DescribeModelResponse model = router().describeModel(DescribeModelRequest.getDefaultInstance());
    require(model.getLayersCount() > 0, "the model has no layer");
    layer = model.getLayers(0).getLayer();
    dModel = model.getDModel();
  }

  private void stream() throws Exception {
    List<ForwardResponse> answers =
        forwardStream(
            request(1, layer, hiddenStates),
            request(2, layer, hiddenStates),
            request(3, layer, hiddenStates));
    answers.forEach(answer -> requireGolden(answer.getOutput().getData()));
    List<Long> ids = answers.stream().map(ForwardResponse::getRequestId).sorted().toList();
    require(ids.equals(List.of(1L, 2L, 3L)), "answers to " + ids);
  }

  private void watch() {
    // A blocking stream has no way to say that it was enough; its context has.
    try (Context.CancellableContext enough = Context.current().withCancellation()) {
      enough.run(
          () -> {
            Topology topology =
                timed(ControlGrpc.newBlockingStub(channel))
                    .watchTopology(WatchTopologyRequest.getDefaultInstance())
                    .next()
                    .getTopology();
            require(topology.getReady() && topology.getNodesCount() > 0, topology.toString());
          });
    }
  }

  private void health() {
    for (String service : List.of("", "ready", "expertmesh.v1.Control")) {
      HealthCheckRequest request = HealthCheckRequest.newBuilder().setService(service).build();
      ServingStatus status = timed(HealthGrpc.newBlockingStub(channel)).check(request).getStatus();
      require(status == ServingStatus.SERVING, "\"" + service + "\" is " + status);
    }
  }

  private void reflection() throws Exception {
    ServerReflectionRequest list = ServerReflectionRequest.newBuilder().setListServices("").build();
    List<ServerReflectionResponse> answers =
        exchange(
            timed(ServerReflectionGrpc.newStub(channel))::serverReflectionInfo, List.of(list));
    require(
        answers.get(0).getListServicesResponse().getServiceList().stream()
            .anyMatch(service -> service.getName().equals("expertmesh.v1.Router")),
        "no Router in " + answers);
  }

  /** A message of 60 MB on the way there and back: the golden tokens, over and over. */
  private void big() {
    int one = hiddenStates.size();
    int count = BIG_BYTES / one;
    byte[] all = new byte[count * one];
    for (int i = 0; i < count; ++i) {
      hiddenStates.copyTo(all, i * one);
    }
    ForwardRequest request = request(0, layer, ByteString.copyFrom(all));
    ByteString output = router().forward(request).getOutput().getData();
    require(output.size() == all.length, output.size() + " bytes");
    requireGolden(output.substring(0, one));
    requireGolden(output.substring(output.size() - one));
  }

  private static void requireNamesLayer(Status status) throws IOException {
    String reason = "";
    String field = "";
    for (var detail : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        reason = detail.unpack(ErrorInfo.class).getReason();
      } else if (detail.is(BadRequest.class)) {
        field = detail.unpack(BadRequest.class).getFieldViolations(0).getField();
      }
    }
    require(
        status.getCode() == Code.INVALID_ARGUMENT_VALUE
            && reason.equals("INVALID_FIELD")
            && field.equals("layer"),
        "code " + status.getCode() + ", reason " + reason + ", field " + field);
  }

  private void errors() throws Exception {
    ForwardRequest wrong = request(1, layer + 1000, ByteString.copyFrom(new byte[4 * dModel]));
    try {
      router().forward(wrong);
      throw new IllegalStateException("unary: no error");
    } catch (StatusRuntimeException error) {
      requireNamesLayer(StatusProto.fromThrowable(error));
    }
    requireNamesLayer(Status.parseFrom(forwardStream(wrong).get(0).getStatus().toByteString()));
  }

  private void bits() {
    requireGolden(router().forward(request(0, layer, hiddenStates)).getOutput().getData());
  }

  private boolean run() {
    Map<String, Column> columns = new LinkedHashMap<>();
    columns.put("unary", this::unary);
    columns.put("stream", this::stream);
    columns.put("watch", this::watch);
    columns.put("health", this::health);
    columns.put("reflection", this::reflection);
    columns.put("big", this::big);
    columns.put("errors", this::errors);
    columns.put("bits", this::bits);
    boolean good = true;
    for (Map.Entry<String, Column> column : columns.entrySet()) {
      try {
        column.getValue().run();
        System.out.println(column.getKey() + " yes");
      } catch (Exception error) {
        String why = String.valueOf(error.getMessage()).replaceAll("\\s+", " ");
        System.out.println(column.getKey() + " no: " + why);
        good = false;
      }
    }
    return good;
  }

  public static void main(String[] args) throws IOException {
    if (args.length != 2) {
      System.err.println("usage: Check ROUTER GOLDEN_DIR");
      System.exit(2);
    }
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(args[0])
            .usePlaintext()
            .maxInboundMessageSize(Integer.MAX_VALUE)
            .build();
    boolean good = new Check(channel, Path.of(args[1])).run();
    channel.shutdownNow();
    System.exit(good ? 0 : 1);
  }
}
