import dev.expertmesh.v1.ForwardRequest;
import java.util.HexFormat;
import test.acme.v1.Job;
import test.acme.v1.JobsGrpc;

/** Prints the bytes of a job. */
public final class Main {
  public static void main(String[] args) {
    ForwardRequest request = ForwardRequest.newBuilder().setLayer(7).build();
    byte[] data = Job.newBuilder().setName("a").setRequest(request).build().toByteArray();
    System.out.println(HexFormat.of().formatHex(data));
    assert JobsGrpc.getServiceDescriptor() != null;
  }
}
