import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import dev.expertmesh.v1.*;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.concurrent.TimeUnit;

/** The smallest useful program: asks a router for the output of one layer. */
public final class Quickstart {
  public static void main(String[] args) throws InvalidProtocolBufferException {
    var channel =
        ManagedChannelBuilder.forTarget(args[0])
            .usePlaintext()
            .maxInboundMessageSize(1 << 30) // gRPC's own limit is 4 MiB.
            .build();
    var router = RouterGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
    var data = ByteString.copyFrom(new byte[4 * 32]);
    var x = Tensor.newBuilder().setDtype(Dtype.DTYPE_F32).addShape(1).addShape(32).setData(data);
    try {
      var request = ForwardRequest.newBuilder().setLayer(1).setHiddenStates(x).build();
      var output = router.forward(request).getOutput();
      System.out.println(output.getShapeList() + " " + output.getData().size() + " bytes");
    } catch (StatusRuntimeException error) {
      for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)
            && detail.unpack(ErrorInfo.class).getReason().equals("EXPERTS_MISSING")) {
          System.err.println("no node holds experts that the tokens need: try later");
        }
      }
      throw error;
    } finally {
      channel.shutdownNow();
    }
  }
}
