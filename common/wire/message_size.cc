#include "common/wire/message_size.h"

#include <google/protobuf/descriptor.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace expertmesh {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Bytes of one field: those of a message that has nothing else.
uint64_t BytesOf(const FieldDescriptor* field, Message* others) {
  std::unique_ptr<Message> alone(others->New());
  alone->GetReflection()->SwapFields(others, alone.get(), {field});
  const uint64_t bytes = alone->ByteSizeLong();
  alone->GetReflection()->SwapFields(others, alone.get(), {field});
  return bytes;
}

}  // namespace

std::string TooLargeText(const SizedMessage& sized, uint64_t limit) {
  std::string name(sized.tensor_field);
  uint64_t most = sized.tensor_bytes;
  std::unique_ptr<Message> others(sized.message->New());
  others->CopyFrom(*sized.message);
  std::vector<const FieldDescriptor*> fields;
  others->GetReflection()->ListFields(*others, &fields);
  for (const FieldDescriptor* field : fields) {
    if (const uint64_t bytes = BytesOf(field, others.get()); bytes > most) {
      most = bytes;
      name = field->name();
    }
  }
  return absl::StrCat(sized.bytes, " bytes, the limit is ", limit, "; ", name, " alone has ", most,
                      " of them");
}

}  // namespace expertmesh
