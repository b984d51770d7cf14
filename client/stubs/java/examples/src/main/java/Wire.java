import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.List;

/**
 * Checks that generated Java code writes and reads the bytes of the contract.
 *
 * <pre>Wire MESSAGES</pre>
 *
 * <p>MESSAGES is tests/golden/wire/messages.txt, which is described in make_wire_golden.py.
 */
public final class Wire {
  private Wire() {}

  /** What is wrong with a line; empty when nothing is. */
  private static String check(String line) throws Exception {
    String[] columns = line.split(" ", 4);
    String name = columns[0];
    String hex = columns[2].equals("-") ? "" : columns[2];
    ByteString golden = ByteString.copyFrom(HexFormat.of().parseHex(hex));

    Class<?> type = Class.forName("dev.expertmesh.v1." + name);
    Message.Builder builder = (Message.Builder) type.getMethod("newBuilder").invoke(null);
    Message.Builder empty = builder.clone();
    JsonFormat.parser().merge(columns[3], builder);
    Message wanted = builder.build();
    if (columns[1].equals("both") && !wanted.toByteString().equals(golden)) {
      String wrote = HexFormat.of().formatHex(wanted.toByteArray());
      return name + ": wrote " + wrote + ", expected " + hex;
    }
    // As JSON, since what a later version added is no difference.
    String read = JsonFormat.printer().print(empty.mergeFrom(golden));
    if (!read.equals(JsonFormat.printer().print(wanted))) {
      return name + ": read " + read + " from " + hex + ", expected " + columns[3];
    }
    return "";
  }

  public static void main(String[] args) throws Exception {
    if (args.length != 1) {
      System.err.println("usage: Wire MESSAGES");
      System.exit(2);
    }
    List<String> lines = Files.readAllLines(Path.of(args[0]));
    int wrong = 0;
    for (String line : lines) {
      String problem = check(line);
      if (!problem.isEmpty()) {
        System.out.println(problem);
        ++wrong;
      }
    }
    System.out.println(lines.size() + " messages, " + wrong + " wrong");
    System.exit(wrong > 0 || lines.isEmpty() ? 1 : 0);
  }
}
