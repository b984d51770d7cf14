// Checks that generated C++ code writes and reads the bytes of the contract.
//
//   wire MESSAGES      (tests/golden/wire/messages.txt, which is described in make_wire_golden.py)
#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

namespace pb = google::protobuf;

namespace {

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; hex != "-" && i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string ToJson(const pb::Message& message) {
  std::string json;
  const auto status = pb::util::MessageToJsonString(message, &json);
  return status.ok() ? json : status.ToString();
}

// What is wrong with a line; empty when nothing is.
std::string Check(const std::string& line) {
  std::istringstream columns(line);
  std::string name, direction, hex, content;
  columns >> name >> direction >> hex;
  std::getline(columns, content);
  const std::string golden = FromHex(hex);

  const pb::Descriptor* const type =
      pb::DescriptorPool::generated_pool()->FindMessageTypeByName("expertmesh.v1." + name);
  if (type == nullptr) {
    return name + ": no such message";
  }
  const pb::Message* const prototype = pb::MessageFactory::generated_factory()->GetPrototype(type);
  const std::unique_ptr<pb::Message> wanted(prototype->New());
  const auto status = pb::util::JsonStringToMessage(content, wanted.get());
  if (!status.ok()) {
    return name + ": " + status.ToString();
  }
  if (direction == "both" && wanted->SerializeAsString() != golden) {
    return name + ": did not write " + hex;
  }
  const std::unique_ptr<pb::Message> read(prototype->New());
  if (!read->ParseFromString(golden) || ToJson(*read) != ToJson(*wanted)) {
    return name + ": read " + ToJson(*read) + " from " + hex;
  }
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  std::ifstream file(argc == 2 ? argv[1] : "");
  if (!file) {
    std::fprintf(stderr, "usage: wire MESSAGES\n");
    return 2;
  }
  int lines = 0, wrong = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    const std::string problem = Check(line);
    if (!problem.empty()) {
      std::printf("%s\n", problem.c_str());
      ++wrong;
    }
  }
  std::printf("%d messages, %d wrong\n", lines, wrong);
  return wrong > 0 || lines == 0 ? 1 : 0;
}
